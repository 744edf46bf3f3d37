//! Which known word was meant by an unknown one?

/// Longer words are not compared.
const CHARS_MAX: usize = 64;

/// The known word that differs least from `word`, if it differs little: by one letter in three, at most.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word.chars().take(CHARS_MAX + 1).flat_map(char::to_lowercase).collect();
    if word.len() > CHARS_MAX {
        return None;
    }
    let scored = known.into_iter().map(|it| (distance(&word, it), it));
    let (distance, best) = scored.min_by_key(|(distance, _)| *distance)?;
    (distance <= (word.len().max(best.chars().count())).div_ceil(3)).then_some(best)
}

/// "did you mean", for the end of a message.
pub(crate) fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(word, known).map(|it| format!("did you mean `{it}`?"))
}

/// Letters to add, leave out, change or swap with their neighbours.
///
/// *Source:* R. A. Wagner and M. J. Fischer, "The String-to-String Correction Problem", 1974, with transpositions as in
/// the restricted Damerau-Levenshtein distance.
fn distance(a: &[char], b: &str) -> usize {
    let b: Vec<char> = b.chars().take(CHARS_MAX).collect();
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let change = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = change.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(before[j - 2] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn little_slips_are_seen_and_other_words_are_not() {
        let known = ["executables", "reads", "writes", "timeout", "cpus"];
        let of = |word| nearest(word, known);
        assert_eq!(of("executable"), Some("executables"));
        assert_eq!(of("raeds"), Some("reads"));
        assert_eq!(of("Timeout"), Some("timeout"));
        assert_eq!(of("tiemout"), Some("timeout"));
        assert_eq!(of("bananas"), None);
        assert_eq!(of(&"x".repeat(100_000)), None);
        assert_eq!(nearest("a", []), None);
    }
}
