//! Tokenizers from outside Hugging Face: llm.c's `.bin`, which lists the bytes of each token, and nanoGPT's
//! `meta.pkl`, which lists the characters of a data set.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::Recipe;
use super::pieces::char_of;
use crate::model::pickle;

/// What a tokenizer of llm.c begins with.
const MAGIC: u32 = 20_240_328;
const HEADER: usize = 1024;
/// The end of a text where the header does not say it.
const EOT: u32 = 50256;
/// More tokens, and bytes of tokens, than any such file has.
const MOST_TOKENS: usize = 1 << 18;
const MOST_BYTES: usize = 1 << 21;

/// llm.c's tokenizer. It has no merges; but GPT-2's tokens are in the order in which they were merged, so that
/// the merges follow from the tokens (as in tiktoken).
pub fn llmc(bytes: &[u8]) -> Result<Recipe, String> {
    let field = |i: usize| Some(u32::from_le_bytes(*bytes.get(4 * i..)?.first_chunk()?));
    if field(0) != Some(MAGIC) {
        return Err("it is not a tokenizer of llm.c".into());
    }
    let (version, count) = (field(1).unwrap_or(0), field(2).unwrap_or(0) as usize);
    let eot = match version {
        1 => EOT,
        2 => field(3).unwrap_or(EOT),
        other => return Err(format!("it has version {other}; actscope reads 1 and 2")),
    };
    if count > MOST_TOKENS || bytes.len() > HEADER + MOST_BYTES + MOST_TOKENS {
        return Err(format!("it has {count} tokens in {} bytes, more than any", bytes.len()));
    }
    let mut rest = bytes.get(HEADER..).ok_or("it is cut short within its header")?;
    let mut tokens = Vec::new();
    for id in 0..count {
        let (&length, after) = rest.split_first().ok_or_else(|| format!("it is cut short at token {id}"))?;
        let token =
            after.get(..usize::from(length)).ok_or_else(|| format!("it is cut short at token {id}"))?;
        tokens.push(token);
        rest = &after[token.len()..];
    }
    if !rest.is_empty() {
        return Err(format!("{} bytes follow its {count} tokens", rest.len()));
    }
    let special = tokens.get(eot as usize).map(|token| String::from_utf8_lossy(token).into_owned());
    let mut ranks = HashMap::new();
    for (id, token) in tokens.iter().enumerate() {
        if token.is_empty() || ranks.insert(*token, id).is_some() {
            return Err(format!("its token {id} is empty, or there twice"));
        }
    }
    let written = |bytes: &[u8]| bytes.iter().map(|&byte| char_of(byte)).collect::<String>();
    let mut merges = Vec::new();
    let mut whole = true;
    for (id, token) in tokens.iter().enumerate().filter(|(id, token)| token.len() > 1 && *id != eot as usize)
    {
        match halves(token, id, &ranks) {
            Some((a, b)) => merges.push(json!([written(a), written(b)])),
            None => whole = false,
        }
    }
    let mut vocab: Map<String, Value> =
        tokens.iter().enumerate().map(|(id, token)| (written(token), id.into())).collect();
    let mut added = Vec::new();
    if let Some(content) = special {
        vocab.remove(&written(tokens[eot as usize]));
        vocab.insert(content.clone(), eot.into());
        added.push(json!({
            "id": eot, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true
        }));
    }
    let bytes = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true
    });
    let json = json!({
        "version": "1.0",
        "added_tokens": added,
        "pre_tokenizer": bytes,
        "decoder": bytes,
        "model": { "type": "BPE", "vocab": vocab, "merges": merges },
    });
    let only_decodes = (!whole).then(|| {
        "its tokens are not those of a byte-level BPE in the order of their merges, so it turns ids into text, but \
         not text into ids"
            .to_owned()
    });
    Ok(Recipe { json, only_decodes, ..Recipe::default() })
}

/// The two tokens that were merged to `token`: what is left of its bytes after all merges of lower rank.
fn halves<'a>(token: &'a [u8], rank: usize, ranks: &HashMap<&[u8], usize>) -> Option<(&'a [u8], &'a [u8])> {
    let rank_of = |start: usize, end: usize| ranks.get(&token[start..end]).copied().filter(|&r| r < rank);
    // Where the parts begin, and the rank of each with the next.
    let mut starts: Vec<usize> = (0..=token.len()).collect();
    let mut pairs: Vec<Option<usize>> = starts.windows(3).map(|at| rank_of(at[0], at[2])).collect();
    while starts.len() > 3 {
        let (_, at) = pairs.iter().enumerate().filter_map(|(at, rank)| Some(((*rank)?, at))).min()?;
        starts.remove(at + 1);
        pairs.remove(at);
        for pair in at.saturating_sub(1)..=at {
            if pair + 2 < starts.len() {
                pairs[pair] = rank_of(starts[pair], starts[pair + 2]);
            }
        }
    }
    let (a, b) = (&token[..starts[1]], &token[starts[1]..]);
    (rank_of(0, starts[1]).is_some() && rank_of(starts[1], token.len()).is_some()).then_some((a, b))
}

/// The characters of a data set of nanoGPT: `stoi` of its `meta.pkl`.
pub fn characters(bytes: &[u8]) -> Result<Recipe, String> {
    let meta = pickle::plain(bytes).map_err(|e| e.to_string())?;
    let ids = meta["stoi"].as_object().ok_or("it has no `stoi`, the ids of characters")?;
    if let Some(other) = ids.keys().find(|text| text.chars().count() != 1) {
        return Err(format!("its `stoi` has {other:?}, which is not one character"));
    }
    let json = json!({
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {
            "type": "Split", "pattern": { "Regex": "(?s:.)" }, "behavior": "Isolated", "invert": false
        },
        "decoder": { "type": "Fuse" },
        "model": { "type": "WordLevel", "vocab": ids, "unk_token": "" },
    });
    Ok(Recipe { json, ..Recipe::default() })
}
