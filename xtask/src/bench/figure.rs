//! One figure of the table: measured, goal, peers. The peers' were taken on the same QEMU with an equal guest.

use crate::render::{Json, object, string};

/// What was measured.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// One number.
    One(u64),
    /// Median and worst of many.
    Spread(u64, u64),
    /// Milliseconds.
    Millis(f64),
    /// Percent more than without a hypervisor.
    Percent(f64),
    /// Words, where a number would not tell.
    Words(String),
}

/// A line of the table.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    /// What it is.
    pub(crate) name: String,
    /// What was measured.
    pub(crate) value: Value,
    /// The most it should be.
    pub(crate) goal: Option<f64>,
    /// On bare metal, Bao 2.0, Xen 4.17 dom0less; empty where there is none.
    pub(crate) peers: [String; 3],
}

impl Figure {
    /// A figure with the peers' as text.
    pub(crate) fn new(name: impl Into<String>, value: Value, goal: Option<f64>, peers: [&str; 3]) -> Self {
        Self { name: name.into(), value, goal, peers: peers.map(String::from) }
    }

    /// The number held against the goal: the median of a spread.
    fn number(&self) -> Option<f64> {
        match self.value {
            Value::One(value) | Value::Spread(value, _) => Some(value as f64),
            Value::Millis(value) | Value::Percent(value) => Some(value),
            Value::Words(_) => None,
        }
    }

    fn verdict(&self) -> String {
        match (self.number(), self.goal) {
            (Some(number), Some(goal)) if number <= goal => "reached".into(),
            (Some(number), Some(goal)) if matches!(self.value, Value::Percent(_)) => {
                format!("missed by {:.3} points", number - goal)
            }
            (Some(number), Some(goal)) => format!("missed by {:.0} %", (number / goal.max(1.0) - 1.0) * 100.0),
            _ => String::new(),
        }
    }

    fn measured(&self) -> String {
        match &self.value {
            Value::One(value) => grouped(*value),
            Value::Spread(median, worst) => format!("{} (worst {})", grouped(*median), grouped(*worst)),
            Value::Millis(value) => format!("{value:.1} ms"),
            Value::Percent(value) => format!("{value:+.3} %"),
            Value::Words(text) => text.clone(),
        }
    }

    fn goal_text(&self) -> String {
        match (&self.value, self.goal) {
            (_, None) => String::new(),
            (Value::Millis(_), Some(goal)) => format!("{goal:.0} ms"),
            (Value::Percent(_), Some(goal)) => format!("+{goal} %"),
            (_, Some(goal)) => grouped(goal as u64),
        }
    }
}

/// `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// The table for people.
pub(crate) fn table(figures: &[Figure]) -> String {
    let heads = ["figure", "measured", "goal", "", "bare EL1", "Bao 2.0", "Xen 4.17"].map(String::from);
    let rows = figures.iter().map(|figure| {
        let [bare, bao, xen] = figure.peers.clone();
        [figure.name.clone(), figure.measured(), figure.goal_text(), figure.verdict(), bare, bao, xen]
    });
    let rows: Vec<_> = std::iter::once(heads).chain(rows).collect();
    let mut out = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
            line += &format!("{cell:<width$}  ");
        }
        out += line.trim_end();
        out.push('\n');
    }
    out
}

/// The table for scripts.
pub(crate) fn json(figures: &[Figure]) -> Json {
    let all = figures.iter().map(|figure| {
        let number = |value: Option<f64>| value.map_or(Json::Null, Json::Float);
        let worst = if let Value::Spread(_, worst) = figure.value { Json::Number(worst) } else { Json::Null };
        let [bare, bao, xen] = &figure.peers;
        object([
            ("name", string(figure.name.as_str())),
            ("measured", number(figure.number())),
            ("worst", worst),
            ("words", string(figure.measured())),
            ("goal", number(figure.goal)),
            (
                "reached",
                figure.number().zip(figure.goal).map_or(Json::Null, |(number, goal)| Json::Bool(number <= goal)),
            ),
            ("bare", string(bare.as_str())),
            ("bao", string(bao.as_str())),
            ("xen", string(xen.as_str())),
        ])
    });
    object([("figures", Json::Array(all.collect()))])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_honest() {
        let figure = |value, goal| Figure::new("x", value, Some(goal), ["", "", ""]).verdict();
        assert_eq!(figure(Value::One(60), 60.0), "reached");
        assert_eq!(figure(Value::Spread(90, 91), 60.0), "missed by 50 %");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }
}
