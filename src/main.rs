fn main() {
    let options = actscope::tui::Options {
        source: actscope::model::Source::Demo,
        load: Default::default(),
        input: actscope::Input::text(
            std::env::args()
                .nth(1)
                .unwrap_or("The old man said to the young man that the sea was calm.".into()),
        ),
        light: None,
        depth: None,
        mouse: true,
    };
    if let Err(e) = actscope::tui::run(options) {
        eprintln!("actscope: {e}");
        std::process::exit(e.exit_code().into());
    }
}
