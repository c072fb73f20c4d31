//! The language, by what people write in it.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::files::is_dump;
use super::parse::parse;
use super::*;

fn read(text: &str) -> Vec<Directive> {
    parse(text, &Path::new("shop.conf").into()).unwrap()
}

fn refused(text: &str) -> String {
    parse(text, &Path::new("shop.conf").into()).unwrap_err().to_string()
}

fn arguments(text: &str) -> Vec<String> {
    read(text).remove(0).arguments
}

#[test]
fn words_lose_quotes_and_escapes_and_a_regular_expression_keeps_its_own() {
    assert_eq!(arguments(r#"a "b c" 'd;e{f}' "g\"h" 'i\'j' "";"#), ["b c", "d;e{f}", "g\"h", "i'j", ""]);
    assert_eq!(arguments(r"location ~ \.(js|css)$ {}"), ["~", r"\.(js|css)$"]);
    assert_eq!(arguments(r"rewrite ^/a\\b x\ty a\;b;"), [r"^/a\b", "x\ty", r"a\;b"]);
    assert_eq!(arguments("log_format main '$a \"$b\"'\n  ' $c';"), ["main", "$a \"$b\"", " $c"]);
    assert_eq!(arguments("if ($host = \"a b\") {}"), ["($host", "=", "a b", ")"]);
}

#[test]
fn the_braces_of_a_variable_are_none_of_a_block() {
    assert_eq!(arguments("proxy_pass http://${up}:80/a${b};"), ["http://${up}:80/a${b}"]);
    let map = read("map $uri $new { default ''; /a /b; }").remove(0);
    assert_eq!((map.argument(1), map.inner().len(), map.inner()[1].name.as_str()), ("$new", 2, "/a"));
}

#[test]
fn a_comment_ends_with_its_line_and_begins_no_word() {
    let found = read("# a; {\nlisten 80; # b }\nserver_name a#b;");
    assert_eq!(found.len(), 2);
    assert_eq!(found[1].arguments, ["a#b"]);
    assert_eq!(found.iter().map(|one| one.place.to_string()).collect::<Vec<_>>(), ["shop.conf:2", "shop.conf:3"]);
}

#[test]
fn blocks_stand_within_each_other_and_keep_their_lines() {
    let http = read("http {\n  a 1;\n  server {\n    location / { b; }\n    c;\n  }\n  d;\n}\ne;").remove(0);
    assert_eq!(http.inner().iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["a", "server", "d"]);
    let server = http.first("server").unwrap();
    assert_eq!((server.place.line, server.inner().len()), (3, 2));
    assert_eq!(server.first("location").unwrap().first("b").unwrap().place.line, 4);
}

#[test]
fn what_nginx_refuses_is_refused_with_its_line() {
    for (text, wanted) in [
        ("a;\n;", "shop.conf:2: `;` ends nothing"),
        ("{ }", "shop.conf:1: `{` stands behind no directive"),
        ("http {\n a;\n}\n}", "shop.conf:4: `}` closes nothing"),
        ("http {\n server {\n a;\n}", "shop.conf:1: the block of `http` is never closed"),
        ("server {\n listen 80\n}", "shop.conf:2: `listen 80` lacks its `;`"),
        ("listen 80", "shop.conf:1: `listen 80` lacks its `;`"),
        ("a\n'b", "shop.conf:2: the quote (') that opens here is never closed"),
        ("a 'b'c;", "shop.conf:1: `c` stands right behind a closing quote"),
    ] {
        assert_eq!(refused(text), wanted);
    }
    assert!(refused(&"a{".repeat(100)).contains("more than 64 blocks"));
}

#[test]
fn a_program_in_another_language_is_passed_over() {
    let found = read("location / { content_by_lua_block { if a then b = {} end } }\nc;");
    assert_eq!((found.len(), found[0].inner()[0].name.as_str()), (2, "content_by_lua_block"));
    assert!(refused("a_by_lua_block { { }").contains("never closed"));
}

#[test]
fn an_include_begins_in_the_main_files_folder_else_in_its_own_and_patterns_are_sorted() {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    put("nginx.conf", "http {\n include conf.d/*.conf;\n include none/*;\n include /no/such/file;\n}");
    put("conf.d/b.conf", "b; include snippets/s;");
    put("conf.d/a.conf", "a; include beside;");
    put("conf.d/.hidden.conf", "hidden;");
    put("conf.d/beside", "beside;");
    put("snippets/s", "s;");
    let Loaded { directives, missing } = load(&folder.path().join("nginx.conf")).unwrap();
    let names: Vec<&str> = directives[0].inner().iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["a", "beside", "b", "s"]);
    assert!(directives[0].inner()[3].place.to_string().ends_with("snippets/s:1"));
    assert_eq!((missing.len(), missing[0].directive.place.line), (1, 4));
    assert!(missing[0].why.contains("/no/such/file is not there"), "{}", missing[0].why);
    put("circle.conf", "include circle.conf;");
    assert!(load(&folder.path().join("circle.conf")).unwrap_err().to_string().contains("include each other"));
    assert!(load(&folder.path().join("none.conf")).unwrap_err().to_string().contains("none.conf: it can't be read"));
}

#[test]
fn what_nginx_prints_is_read_as_the_files_that_it_took() {
    let dump = "nginx: the configuration file /e/nginx.conf syntax is ok\n# configuration file /e/nginx.conf:\nhttp {\n\
                include conf.d/*.conf;\n}\n# configuration file /e/conf.d/a.conf:\na;\n# configuration file /e/conf.d/sub/b.conf:\nb;\n";
    assert!(is_dump(dump));
    let loaded = load_dump(dump).unwrap();
    let inner = loaded.directives[0].inner();
    assert_eq!((inner.len(), inner[0].place.to_string().as_str()), (1, "/e/conf.d/a.conf:1"));
    assert!(loaded.missing.is_empty());
}

#[test]
fn a_text_is_taken_apart_at_its_variables() {
    let text = |text: &str| Piece::Text(text.to_owned());
    let variable = |name: &str| Piece::Variable(name.to_owned());
    assert_eq!(
        pieces("${scheme}://$host/a$1b$"),
        [variable("scheme"), text("://"), variable("host"), text("/a"), variable("1"), text("b$")]
    );
    assert!(pieces("").is_empty());
    let sets = Sets::default().within(&read("set $live shop; set $to http://$live:80; location / {}"));
    assert_eq!(sets.put_in("$to$uri"), "http://shop:80${uri}");
    assert_eq!(sets.put_in("$uri"), "${uri}");
}

proptest! {
    /// Whatever stands in a file: no panic, and what is taken whole is not taken when it is cut in a block.
    #[test]
    fn any_text_is_read_or_refused(text in "[a-z{};\"'\\\\#$ \n*~^]{0,80}") {
        let path = Path::new("any").into();
        drop(load_dump(&text));
        if parse(&text, &path).is_ok() {
            let cut = parse(&["server { ", &text, "\n"].concat(), &path);
            let whole = parse(&["server { ", &text, "\n}"].concat(), &path);
            prop_assert!(cut.is_err() && whole.is_ok());
        }
    }
}
