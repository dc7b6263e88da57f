//! Integer expressions: of `#if`, with C's signed and unsigned 64-bit numbers, and of cells, where all are unsigned as in dtc.

use crate::lex::{Kind, Token};
use crate::nearest::Nearest;
use crate::pre::Pre;
use crate::store::Full;
use crate::{Arg, Diagnostic, Span, codes};

/// Parentheses, unary operators and `?:` within one another.
const MAX_DEPTH: u32 = 64;

#[derive(Clone, Copy)]
struct Num {
    value: u64,
    unsigned: bool,
}

/// `None`: an error was reported.
type Eval = Result<Option<Num>, Full>;

struct Eva<'p, 'a, 'd, 's> {
    pre: &'p mut Pre<'a, 'd, 's>,
    /// Of a cell, not of `#if`.
    cell: bool,
    depth: u32,
    /// In a branch that does not count, `#if` forgives.
    dead: u32,
}

/// The whole expression of `#if`.
pub(crate) fn condition(pre: &mut Pre<'_, '_, '_>, at: Span) -> Result<Option<u64>, Full> {
    if pre.peek()?.kind == Kind::Eof {
        pre.say(codes::SYNTAX, at, "this conditional has no expression", "", &[]);
        return Ok(None);
    }
    let mut eva = Eva { pre, cell: false, depth: 0, dead: 0 };
    let Some(value) = eva.ternary()? else { return Ok(None) };
    let rest = pre.peek()?;
    if rest.kind != Kind::Eof {
        pre.say(codes::SYNTAX, rest.span, "expected an operator, found `{0}`", "", &[Arg::Text(rest.text)]);
    }
    Ok(Some(value.value))
}

/// One element of a cell list: a number, a character, or an expression in parentheses. With its place.
pub(crate) fn cell(pre: &mut Pre<'_, '_, '_>) -> Result<Option<(u64, Span)>, Full> {
    let first = pre.peek()?;
    let mut eva = Eva { pre, cell: true, depth: 0, dead: 0 };
    let mut end = first.span;
    let value = if first.is(b'(') { eva.parens(&mut end)? } else { eva.literal()? };
    Ok(value.map(|v| (v.value, first.span.to(end))))
}

/// Binding strength of a binary operator, 1 for `||` to 10 for `*`, and its length.
fn binary(a: &Token<'_>, b: &Token<'_>) -> Option<(u8, usize, [u8; 2])> {
    let Kind::Punct(first) = a.kind else { return None };
    let second = match b.kind {
        Kind::Punct(second) if !b.space => second,
        _ => 0,
    };
    let two = match [first, second] {
        [b'|', b'|'] => 1,
        [b'&', b'&'] => 2,
        [b'=', b'='] | [b'!', b'='] => 6,
        [b'<', b'='] | [b'>', b'='] => 7,
        [b'<', b'<'] | [b'>', b'>'] => 8,
        _ => 0,
    };
    if two != 0 {
        return Some((two, 2, [first, second]));
    }
    let one = match first {
        b'|' => 3,
        b'^' => 4,
        b'&' => 5,
        b'<' | b'>' => 7,
        b'+' | b'-' => 9,
        b'*' | b'/' | b'%' => 10,
        _ => return None,
    };
    Some((one, 1, [first, 0]))
}

impl<'a> Eva<'_, 'a, '_, '_> {
    fn deeper(&mut self, at: Span) -> bool {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            self.pre.say(codes::NUMBER, at, "this expression is nested too deep", "", &[]);
        }
        self.depth <= MAX_DEPTH
    }

    fn ternary(&mut self) -> Eval {
        let at = self.pre.peek()?.span;
        if !self.deeper(at) {
            return Ok(None);
        }
        let Some(test) = self.binary(1)? else { return Ok(None) };
        let value = if self.pre.peek()?.is(b'?') {
            self.pre.bump()?;
            let yes = test.value != 0;
            self.dead += u32::from(!yes);
            let Some(first) = self.ternary()? else { return Ok(None) };
            self.dead -= u32::from(!yes);
            let colon = self.pre.peek()?;
            if !colon.is(b':') {
                self.unexpected(colon, "expected `:` of `?:`, found {0}");
                return Ok(None);
            }
            self.pre.bump()?;
            self.dead += u32::from(yes);
            let Some(second) = self.ternary()? else { return Ok(None) };
            self.dead -= u32::from(yes);
            let value = if yes { first.value } else { second.value };
            Num { value, unsigned: first.unsigned || second.unsigned }
        } else {
            test
        };
        self.depth -= 1;
        Ok(Some(value))
    }

    fn binary(&mut self, least: u8) -> Eval {
        let Some(mut left) = self.unary()? else { return Ok(None) };
        loop {
            let (a, b) = (self.pre.peek()?, self.pre.peek_at(1)?);
            let Some((strength, length, op)) = binary(&a, &b) else { return Ok(Some(left)) };
            if strength < least {
                return Ok(Some(left));
            }
            for _ in 0..length {
                self.pre.bump()?;
            }
            // What `||` and `&&` have decided already, `#if` does not look at.
            let idle = matches!((op, left.value != 0), ([b'|', b'|'], true) | ([b'&', b'&'], false));
            self.dead += u32::from(idle);
            let Some(right) = self.binary(strength + 1)? else { return Ok(None) };
            self.dead -= u32::from(idle);
            let Some(value) = self.apply(op, a.span, left, right) else { return Ok(None) };
            left = value;
        }
    }

    fn apply(&mut self, op: [u8; 2], at: Span, left: Num, right: Num) -> Option<Num> {
        let unsigned = left.unsigned || right.unsigned;
        let (a, b) = (left.value, right.value);
        let (sa, sb) = (a as i64, b as i64);
        let number = |value| Some(Num { value, unsigned });
        let truth = |yes: bool| Some(Num { value: u64::from(yes), unsigned: self.cell });
        match op {
            [b'|', b'|'] => truth(a != 0 || b != 0),
            [b'&', b'&'] => truth(a != 0 && b != 0),
            [b'=', b'='] => truth(a == b),
            [b'!', b'='] => truth(a != b),
            [b'<', b'='] => truth(if unsigned { a <= b } else { sa <= sb }),
            [b'>', b'='] => truth(if unsigned { a >= b } else { sa >= sb }),
            [b'<', 0] => truth(if unsigned { a < b } else { sa < sb }),
            [b'>', 0] => truth(if unsigned { a > b } else { sa > sb }),
            [b'<', b'<'] => Some(Num { value: if b < 64 { a << b } else { 0 }, unsigned: left.unsigned }),
            [b'>', b'>'] => {
                let value = if left.unsigned { if b < 64 { a >> b } else { 0 } } else { (sa >> b.min(63)) as u64 };
                Some(Num { value, unsigned: left.unsigned })
            }
            [b'|', _] => number(a | b),
            [b'^', _] => number(a ^ b),
            [b'&', _] => number(a & b),
            [b'+', _] => number(a.wrapping_add(b)),
            [b'-', _] => number(a.wrapping_sub(b)),
            [b'*', _] => number(a.wrapping_mul(b)),
            _ if b == 0 => {
                if self.dead == 0 || self.cell {
                    self.pre.say(codes::NUMBER, at, "this divides by zero", "", &[]);
                    return None;
                }
                number(0)
            }
            [b'/', _] => number(if unsigned { a / b } else { sa.wrapping_div(sb) as u64 }),
            _ => number(if unsigned { a % b } else { sa.wrapping_rem(sb) as u64 }),
        }
    }

    fn unary(&mut self) -> Eval {
        let token = self.pre.peek()?;
        let op = match token.kind {
            Kind::Punct(op @ (b'-' | b'+' | b'~' | b'!')) => op,
            Kind::Punct(b'(') => return self.parens(&mut Span::default()),
            _ => return self.literal(),
        };
        if !self.deeper(token.span) {
            return Ok(None);
        }
        self.pre.bump()?;
        let Some(num) = self.unary()? else { return Ok(None) };
        self.depth -= 1;
        Ok(Some(match op {
            b'-' => Num { value: num.value.wrapping_neg(), ..num },
            b'~' => Num { value: !num.value, ..num },
            b'!' => Num { value: u64::from(num.value == 0), unsigned: self.cell },
            _ => num,
        }))
    }

    /// `( … )`, leaving the place of `)` in `end`.
    fn parens(&mut self, end: &mut Span) -> Eval {
        let open = self.pre.bump()?;
        let Some(value) = self.ternary()? else { return Ok(None) };
        let close = self.pre.peek()?;
        *end = close.span;
        if close.is(b')') {
            self.pre.bump()?;
            return Ok(Some(value));
        }
        let message = "expected an operator or `)`, found {0}";
        self.unexpected_in(close, message, Some(open.span));
        Ok(None)
    }

    fn unexpected(&mut self, found: Token<'a>, message: &'static str) {
        self.unexpected_in(found, message, None);
    }

    fn unexpected_in(&mut self, found: Token<'a>, message: &'static str, open: Option<Span>) {
        let mut wrong = Diagnostic::new(codes::SYNTAX, found.span, message).args(&[describe(&found)]);
        if let Some(open) = open {
            wrong = wrong.also(open, "opened here");
        }
        self.pre.error(wrong);
    }

    fn literal(&mut self) -> Eval {
        let token = self.pre.peek()?;
        let unsigned = self.cell;
        match token.kind {
            Kind::Number => {
                self.pre.bump()?;
                match number(token.text) {
                    Ok((value, suffix)) => Ok(Some(Num { value, unsigned: unsigned || suffix || value >> 63 != 0 })),
                    Err(message) => {
                        self.pre.say(codes::NUMBER, token.span, message, "", &[Arg::Text(token.text)]);
                        Ok(None)
                    }
                }
            }
            Kind::Char => {
                self.pre.bump()?;
                let inner = token.text.get(1..token.text.len().saturating_sub(1)).unwrap_or("").as_bytes();
                let mut bytes = Unescape(inner);
                match (bytes.next(), bytes.next()) {
                    (Some(byte), None) => Ok(Some(Num { value: u64::from(byte), unsigned })),
                    _ => {
                        let message = "{0} is not one character";
                        self.pre.say(codes::NUMBER, token.span, message, "", &[Arg::Text(token.text)]);
                        Ok(None)
                    }
                }
            }
            Kind::Ident if !self.cell => {
                if token.text == "defined" {
                    return self.defined();
                }
                self.pre.bump()?;
                Ok(Some(Num { value: 0, unsigned: false }))
            }
            Kind::Ident => {
                self.pre.bump()?;
                self.undefined(token);
                Ok(None)
            }
            Kind::Punct(b'-') if self.cell => {
                self.pre.bump()?;
                let help = "in a list of cells an expression needs parentheses: `(-1)`";
                self.pre.say(codes::SYNTAX, token.span, "expected a number, found `-`", help, &[]);
                Ok(None)
            }
            _ => {
                self.unexpected(token, "expected a number, found {0}");
                Ok(None)
            }
        }
    }

    /// A word where a number must be.
    fn undefined(&mut self, token: Token<'a>) {
        if let Some(id) = self.pre.lookup(token.text) {
            let mac = self.pre.macros[id as usize];
            let count = u64::from(mac.params.1 - mac.params.0);
            let message = "macro `{0}` takes {1} arguments, but stands here alone";
            let call = Diagnostic::new(codes::MACRO, token.span, message)
                .args(&[Arg::Text(token.text), Arg::Number(count)])
                .also(mac.span, "the macro");
            return self.pre.error(call);
        }
        let mut nearest = Nearest::new(token.text);
        for mac in self.pre.macros.iter().filter(|m| m.defined) {
            nearest.offer(mac.name, mac.span);
        }
        let unknown = Diagnostic::new(codes::MACRO, token.span, "`{0}` is not a number, and no macro has this name")
            .help("define it, include the header that does, or write `&{0}` if a label is meant");
        let unknown = match nearest.found() {
            Some((name, span)) => unknown
                .args(&[Arg::Text(token.text), Arg::Text(name)])
                .also(span, "`{1}` is defined here")
                .help("did you mean `{1}`?"),
            None => unknown.args(&[Arg::Text(token.text)]),
        };
        self.pre.error(unknown);
    }

    /// `defined NAME` and `defined(NAME)`, whose name is not expanded.
    fn defined(&mut self) -> Eval {
        self.pre.bump()?;
        let mut name = self.pre.raw()?;
        let parens = name.is(b'(');
        if parens {
            name = self.pre.raw()?;
        }
        let closed = !parens || self.pre.raw()?.is(b')');
        if name.kind != Kind::Ident || !closed {
            self.pre.say(codes::SYNTAX, name.span, "`defined` needs the name of a macro", "", &[]);
            return Ok(None);
        }
        let value = u64::from(self.pre.lookup(name.text).is_some());
        Ok(Some(Num { value, unsigned: false }))
    }
}

/// How a token is named in a message.
pub(crate) fn describe<'a>(token: &Token<'a>) -> Arg<'a> {
    match token.kind {
        Kind::Eof => Arg::Text("the end"),
        _ => Arg::Text(token.text),
    }
}

/// An integer literal and whether it is marked unsigned; otherwise a message about `{0}`.
pub(crate) fn number(text: &str) -> Result<(u64, bool), &'static str> {
    let digits = text.trim_end_matches(['u', 'U', 'l', 'L']);
    let suffix = &text[digits.len()..];
    let (us, ls) = (suffix.matches(['u', 'U']).count(), suffix.matches(['l', 'L']).count());
    if us > 1 || ls > 2 {
        return Err("`{0}` is not a number");
    }
    let (digits, radix) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&digits[2..], 16),
        [b'0', _, ..] => (&digits[1..], 8),
        _ => (digits, 10),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Err(if radix == 8 && digits.chars().all(|c| c.is_ascii_digit()) {
            "`{0}` begins with 0, so it is octal, but has a digit above 7"
        } else {
            "`{0}` is not a number"
        });
    }
    let value = u64::from_str_radix(digits, radix).map_err(|_| "`{0}` does not fit 64 bits")?;
    Ok((value, us == 1))
}

/// The bytes of a string or character with its escapes resolved, as dtc does.
pub(crate) struct Unescape<'b>(pub(crate) &'b [u8]);

impl Iterator for Unescape<'_> {
    type Item = u8;
    fn next(&mut self) -> Option<u8> {
        loop {
            let (first, rest) = self.0.split_first()?;
            self.0 = rest;
            if *first != b'\\' {
                return Some(*first);
            }
            let Some((escape, rest)) = self.0.split_first() else { return Some(b'\\') };
            self.0 = rest;
            return Some(match escape {
                b'\n' => continue,
                b'\r' if rest.first() == Some(&b'\n') => {
                    self.0 = &rest[1..];
                    continue;
                }
                b'a' => 7,
                b'b' => 8,
                b't' => b'\t',
                b'n' => b'\n',
                b'v' => 11,
                b'f' => 12,
                b'r' => b'\r',
                b'x' => self.digits(16, 2, 0),
                b'0'..=b'7' => self.digits(8, 2, escape - b'0'),
                other => *other,
            });
        }
    }
}

impl Unescape<'_> {
    fn digits(&mut self, radix: u32, most: usize, first: u8) -> u8 {
        let mut value = first;
        for _ in 0..most {
            let digit = self.0.first().and_then(|b| char::from(*b).to_digit(radix));
            let Some(digit) = digit else { break };
            value = value.wrapping_mul(radix as u8).wrapping_add(digit as u8);
            self.0 = &self.0[1..];
        }
        value
    }
}
