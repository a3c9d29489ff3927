//! Asks the hub about a file: its commit, etag and length. hf-hub asks the same, but
//! turns the answers into paths before they can be checked.

use std::time::Duration;
use std::{env, fs};

use reqwest::header::{ETAG, HeaderMap, LOCATION};
use reqwest::{Client, Response, Url};

use super::cache::{Commit, Etag};
use super::trouble::{Result, Trouble};

/// A model that was renamed, or is spelled in other letter case, is a few redirects away.
const REDIRECTS: usize = 10;
/// Number of attempts if the server fails.
const TRIES: u32 = 3;

/// What the hub says about a file before it is downloaded.
#[derive(Debug)]
pub struct Announced {
    pub commit: Commit,
    pub etag: Etag,
    /// In bytes, if the hub says it.
    pub length: Option<u64>,
}

/// Asks about the files of one model.
pub struct Asker {
    client: Client,
    /// `ENDPOINT/OWNER/NAME/resolve`
    files: Url,
    token: Option<String>,
}

impl Asker {
    /// # Errors
    /// An endpoint that is not a URL, or a network that cannot be set up.
    pub fn new(endpoint: &str, id: &str) -> Result<Self, Box<dyn std::error::Error>> {
        let files = Url::parse(&format!("{endpoint}/{id}/resolve"))?;
        // The redirect to the bytes has the headers we need; its target does not.
        let client = Client::builder().redirect(reqwest::redirect::Policy::none());
        let client = client.user_agent(concat!("actscope/", env!("CARGO_PKG_VERSION"))).build()?;
        Ok(Self { client, files, token: token() })
    }

    /// # Errors
    /// [`Trouble::Absent`] for any 404, [`Trouble::Malformed`] for an invalid answer, and any failure of
    /// the hub or the network.
    pub async fn ask(&self, revision: &str, name: &str) -> Result<Announced> {
        let mut url = self.files.clone();
        let path = url
            .path_segments_mut()
            .map(|mut path| _ = path.extend(std::iter::once(revision).chain(name.split('/'))));
        path.map_err(|()| Trouble::Other("HF_ENDPOINT is not the address of a server".into()))?;
        for _ in 0..REDIRECTS {
            let response = self.head(&url).await?;
            let headers = response.headers();
            let elsewhere = headers.get(LOCATION).filter(|_| response.status().is_redirection());
            let elsewhere = elsewhere.and_then(|place| url.join(place.to_str().ok()?).ok());
            match elsewhere {
                Some(place) if place.origin() == url.origin() => url = place,
                _ => return read(&response),
            }
        }
        Err(Trouble::Malformed("too many redirects".into()))
    }

    async fn head(&self, url: &Url) -> Result<Response> {
        let mut pause = Duration::from_millis(100);
        for last in (0..TRIES).map(|i| i + 1 == TRIES) {
            let mut request = self.client.head(url.clone());
            if let Some(token) = &self.token {
                request = request.bearer_auth(token);
            }
            match request.send().await {
                Ok(response) if response.status().is_server_error() && !last => {}
                Err(error) if error.is_connect() && !last => {}
                response => return Ok(response?),
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        unreachable!("the last attempt returns")
    }
}

/// Reads a hub's answer. Its body is never read, because it may be endless.
fn read(response: &Response) -> Result<Announced> {
    match response.status() {
        status if status.is_success() || status.is_redirection() => {}
        status if status.as_u16() == 404 => return Err(Trouble::Absent),
        status => return Err(Trouble::Status(status.as_u16())),
    }
    let text = |header: &str| response.headers().get(header)?.to_str().ok();
    let wrong = |what: &str| Trouble::Malformed(what.to_owned());
    let commit = text("x-repo-commit").ok_or_else(|| wrong("it gives no commit"))?;
    let etag = text("x-linked-etag").or_else(|| text(ETAG.as_str()));
    let etag = etag.ok_or_else(|| wrong("it gives no ETag"))?;
    Ok(Announced {
        commit: Commit::new(commit).ok_or_else(|| wrong("its X-Repo-Commit is not a commit"))?,
        etag: Etag::new(etag).ok_or_else(|| wrong("its ETag is not a plain word"))?,
        length: length(response.headers()),
    })
}

fn length(headers: &HeaderMap) -> Option<u64> {
    let length = headers.get("x-linked-size").or_else(|| headers.get("content-length"))?;
    length.to_str().ok()?.parse().ok()
}

/// The token that hf-hub sends, looked up in the same places.
fn token() -> Option<String> {
    let set = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    if set("HF_HUB_DISABLE_IMPLICIT_TOKEN").is_some() {
        return None;
    }
    let in_file = |path| fs::read_to_string(path).ok().map(|token| token.trim().to_owned());
    set("HF_TOKEN")
        .or_else(|| in_file(env::var_os("HF_TOKEN_PATH")?.into()).filter(|token| !token.is_empty()))
        .or_else(|| in_file(hf_hub::hf_home().join("token")).filter(|token| !token.is_empty()))
}

/// An endpoint that is safe to show.
pub fn without_password(endpoint: &str) -> String {
    let url = Url::parse(endpoint).ok().filter(Url::has_host);
    let Some(mut url) = url else { return "HF_ENDPOINT".into() };
    if url.username().is_empty() && url.password().is_none() {
        return endpoint.to_owned();
    }
    // Both can be removed from every URL that has them.
    let _ = url.set_username("").and_then(|()| url.set_password(None));
    url.as_str().trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_shown() {
        assert_eq!(without_password("https://me:secret@hub.example:8443/x/"), "https://hub.example:8443/x");
        assert_eq!(without_password("http://127.0.0.1:1"), "http://127.0.0.1:1");
        for no_server in ["secret", "me:secret@hub"] {
            assert_eq!(without_password(no_server), "HF_ENDPOINT");
        }
    }
}
