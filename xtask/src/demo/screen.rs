//! What the demo prints: plain text of at most 80 columns, in colour only on a terminal.

use std::{
    env,
    io::{IsTerminal as _, Write as _, stdout},
};

/// Columns that a line may have.
const WIDTH: usize = 80;

/// The output. Whoever closes it early (`| head`) misses the rest; that is no failure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Screen {
    color: bool,
}

/// How a word is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    /// Good.
    Good,
    /// Bad.
    Bad,
    /// A heading.
    Strong,
}

impl Screen {
    /// Colours if the output is a terminal and `NO_COLOR` is not set.
    pub(super) fn new() -> Self {
        let wanted = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { color: wanted && stdout().is_terminal() }
    }

    /// Prints a line as it is.
    pub(super) fn line(self, text: &str) {
        let mut out = stdout().lock();
        writeln!(out, "{text}").and_then(|()| out.flush()).ok();
    }

    /// Prints a heading with an empty line before it.
    pub(super) fn heading(self, text: &str) {
        self.line("");
        self.line(&self.paint(text, Tone::Strong));
    }

    /// Prints sentences, broken into lines and indented.
    pub(super) fn say(self, text: &str) {
        for line in wrap(text, WIDTH - 2) {
            self.line(&format!("  {line}"));
        }
    }

    /// A word in a colour.
    pub(super) fn paint(self, text: &str, tone: Tone) -> String {
        if !self.color {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Good => "32",
            Tone::Bad => "31;1",
            Tone::Strong => "1",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// Breaks a text at spaces; a longer word gets a line of its own.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().filter(|line| {
            line.is_empty() || line.chars().count() + 1 + word.chars().count() <= width
        });
        match line {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
            None => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_at_spaces() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("incomprehensible is long", 5), ["incomprehensible", "is", "long"]);
    }

    #[test]
    fn without_colour_text_is_plain() {
        let screen = Screen { color: false };
        assert_eq!(screen.paint("open", Tone::Good), "open");
        assert_eq!(Screen { color: true }.paint("open", Tone::Good), "\x1b[32mopen\x1b[0m");
    }
}
