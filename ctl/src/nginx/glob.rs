//! Patterns of file names, as `include` takes them: `*`, `?` and `[...]`, none of which is a `/`.

/// Tells whether a pattern has a sign that stands for others.
pub(super) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// Tells whether a name is one of a pattern's.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    // As a shell does: what begins with a dot is hidden.
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    // Where to go on from when what follows the last star doesn't fit.
    let mut star: Option<(usize, usize)> = None;
    let (mut p, mut n) = (0, 0);
    while n < name.len() {
        let step = match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
                continue;
            }
            Some('?') => Some(1),
            Some('[') => match class(&pattern[p..]) {
                Some((length, holds)) => holds(name[n]).then_some(length),
                None => (name[n] == '[').then_some(1),
            },
            Some(plain) => (*plain == name[n]).then_some(1),
            None => None,
        };
        match (step, star) {
            (Some(step), _) => (p, n) = (p + step, n + 1),
            (None, Some((from, at))) => {
                star = Some((from, at + 1));
                (p, n) = (from + 1, at + 1);
            }
            (None, None) => return false,
        }
    }
    pattern[p..].iter().all(|rest| *rest == '*')
}

/// Returns how long a class of characters is, and what is in it; none where it is not closed.
fn class(pattern: &[char]) -> Option<(usize, impl Fn(char) -> bool)> {
    let is_negated = matches!(pattern.get(1), Some('!' | '^'));
    let first = 1 + usize::from(is_negated);
    // A bracket that comes first is one of them.
    let end = (first + 1..pattern.len()).find(|at| pattern[*at] == ']')?;
    let members = &pattern[first..end];
    let holds = move |character: char| {
        let mut rest = members;
        let mut found = false;
        while let Some((low, after)) = rest.split_first() {
            match after {
                ['-', high, after @ ..] => {
                    found |= (*low..=*high).contains(&character);
                    rest = after;
                }
                _ => {
                    found |= *low == character;
                    rest = after;
                }
            }
        }
        found != is_negated
    };
    Some((end + 1, holds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_takes_what_a_shell_takes() {
        for (pattern, name, wanted) in [
            ("*.conf", "shop.conf", true),
            ("*.conf", ".shop.conf", false),
            ("*.conf", "shop.conf.bak", false),
            ("*", "", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("?.conf", "a.conf", true),
            ("[0-9]*", "10-shop", true),
            ("[!0-9]*", "10-shop", false),
            ("[]a]", "]", true),
            ("[a", "[a", true),
            ("shop", "shop", true),
            ("shop", "shops", false),
        ] {
            assert_eq!(matches(pattern, name), wanted, "{pattern} {name}");
        }
    }
}
