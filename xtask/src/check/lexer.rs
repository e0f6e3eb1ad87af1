//! Tells Rust code from comments and literals, without understanding it.

/// `text` with comments and the content of string and character literals replaced by spaces, so
/// that lines and columns stay what they were.
pub(super) fn code_only(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(&c) = characters.get(at) {
        let rest = characters.get(at..).unwrap_or_default();
        let after_word = at > 0 && characters.get(at - 1).is_some_and(|c| is_word(*c));
        let end = match c {
            '/' if rest.get(1) == Some(&'/') => line_end(rest),
            '/' if rest.get(1) == Some(&'*') => comment_end(rest),
            '"' => string_end(rest),
            'r' | 'b' | 'c' if !after_word => raw_string_end(rest).unwrap_or(0),
            '\'' => character_end(rest),
            _ => 0,
        };
        if end == 0 {
            out.push(c);
            at += 1;
        } else {
            out.extend(rest.iter().take(end).map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at += end;
        }
    }
    out
}

/// Whether a character can be part of a name.
pub(super) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn line_end(rest: &[char]) -> usize {
    rest.iter().position(|c| *c == '\n').unwrap_or(rest.len())
}

/// Block comments nest.
fn comment_end(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        match (rest.get(at), rest.get(at + 1)) {
            (Some('/'), Some('*')) => (depth, at) = (depth + 1, at + 2),
            (Some('*'), Some('/')) => {
                (depth, at) = (depth - 1, at + 2);
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    rest.len()
}

fn string_end(rest: &[char]) -> usize {
    let mut at = 1;
    while let Some(c) = rest.get(at) {
        match c {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// The end of `r"…"`, `r#"…"#`, `br"…"`, `cr"…"`; `None` if none starts here.
fn raw_string_end(rest: &[char]) -> Option<usize> {
    let start = usize::from(rest.first() != Some(&'r'));
    if rest.get(start) != Some(&'r') {
        return None;
    }
    let hashes = rest.get(start + 1..)?.iter().take_while(|c| **c == '#').count();
    let open = start + 1 + hashes;
    if rest.get(open) != Some(&'"') {
        return None;
    }
    let closes = |at: usize| {
        rest.get(at) == Some(&'"')
            && rest.get(at + 1..at + 1 + hashes).is_some_and(|h| h.iter().all(|c| *c == '#'))
    };
    let close = (open + 1..rest.len()).find(|at| closes(*at));
    Some(close.map_or(rest.len(), |at| at + 1 + hashes))
}

/// The end of `'x'` or `'\u{1F600}'`; 0 for a lifetime.
fn character_end(rest: &[char]) -> usize {
    if rest.get(1) == Some(&'\\') {
        // The character after the backslash may itself be a quote.
        let close = rest.iter().skip(3).position(|c| *c == '\'');
        close.map_or(0, |at| at + 4)
    } else if rest.get(2) == Some(&'\'') {
        3
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        code_only(text).split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn comments_and_literals_are_blank() {
        assert_eq!(words("a // b\nc"), ["a", "c"]);
        assert_eq!(words("a /* b /* c */ d */ e"), ["a", "e"]);
        assert_eq!(words(r#"a "b \" c" d"#), ["a", "d"]);
        assert_eq!(words("a r#\"b \" c\"# d br\"e\" f"), ["a", "d", "f"]);
        assert_eq!(words(r"a '\'' b '\u{41}' c 'd' e"), ["a", "b", "c", "e"]);
        assert_eq!(words("a \"unfinished"), ["a"]);
        assert_eq!(words("a /* unfinished"), ["a"]);
    }

    #[test]
    fn lifetimes_and_names_are_code() {
        assert_eq!(words("fn f<'a>(x: &'a str)"), ["fn", "f<'a>(x:", "&'a", "str)"]);
        assert_eq!(words("parser r#mod b"), ["parser", "r#mod", "b"]);
    }

    #[test]
    fn lines_stay_where_they_were() {
        let text = "a /*\n\n*/ b \"\n\" c\n";
        let code = code_only(text);
        assert_eq!(code.lines().count(), text.lines().count());
        assert_eq!(code.chars().count(), text.chars().count());
    }
}
