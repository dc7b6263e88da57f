//! "Did you mean": the candidate nearest to a misspelt name.

use crate::Span;

/// Longest name compared.
const MAX: usize = 40;

/// Collects candidates for a name.
pub struct Nearest<'n, 'a> {
    name: &'n str,
    best: Option<(usize, &'a str, Span)>,
}

impl<'n, 'a> Nearest<'n, 'a> {
    /// For this misspelt name.
    pub fn new(name: &'n str) -> Self {
        Self { name, best: None }
    }

    /// Offers a candidate. Of equally near ones the first is kept.
    pub fn offer(&mut self, candidate: &'a str, span: Span) {
        let limit = match self.best {
            Some((best, ..)) => best,
            None => (self.name.len() / 3).clamp(1, 4) + 1,
        };
        if candidate.len().abs_diff(self.name.len()) >= limit || candidate == self.name {
            return;
        }
        if let Some(distance) = distance(self.name.as_bytes(), candidate.as_bytes())
            && distance < limit
        {
            self.best = Some((distance, candidate, span));
        }
    }

    /// The nearest, where one is near enough to be meant.
    pub fn found(self) -> Option<(&'a str, Span)> {
        self.best.map(|(_, name, span)| (name, span))
    }
}

/// Insertions, deletions and replacements between two short names.
fn distance(a: &[u8], b: &[u8]) -> Option<usize> {
    if a.len() > MAX || b.len() > MAX {
        return None;
    }
    let mut row = [0usize; MAX + 1];
    for (i, slot) in row.iter_mut().enumerate() {
        *slot = i;
    }
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(!x.eq_ignore_ascii_case(y));
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    Some(row[b.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_is_near() {
        let mut nearest = Nearest::new("uart0");
        for name in ["gpio0", "uart1", "uart10", "serial"] {
            nearest.offer(name, Span::default());
        }
        assert_eq!(nearest.found().map(|f| f.0), Some("uart1"));
        let mut nearest = Nearest::new("cpu0");
        nearest.offer("gic", Span::default());
        assert!(nearest.found().is_none());
    }
}
