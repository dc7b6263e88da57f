//! Every code this crate raises. Number = group × 100 + ordinal of the check in its group; E and W share the numbers.
//!
//! A code is never reused. Each has one `docs/codes/<code>.md` and at least one fixture.

use crate::Code;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $kind:ident($number:literal);)*) => {
        $($(#[$doc])* pub const $name: Code = Code::$kind($number);)*
        /// Every code of this crate.
        pub const ALL: &[Code] = &[$($name),*];
    };
}

codes! {
    /// `/dts-v1/;` missing, repeated or behind content.
    VERSION = error(101);
    /// Something stands where it cannot.
    SYNTAX = error(102);
    /// An include file that cannot be had, includes itself, or is nested too deep.
    INCLUDE = error(103);
    /// A macro that is not defined, is called wrongly or expands without end.
    MACRO = error(104);
    /// A macro defined again with another body.
    MACRO_AGAIN = warning(104);
    /// A number that does not fit, or an expression without a value.
    NUMBER = error(105);
    /// A bytestring that is not whole bytes.
    BYTESTRING = error(106);
    /// Two siblings of one name in one body.
    DUPLICATE_NODE = error(107);
    /// A property twice in one body.
    DUPLICATE_PROPERTY = error(108);
    /// A property behind a subnode.
    PROPERTY_AFTER_NODE = error(109);
    /// A node name with a bad character or form.
    NODE_NAME = error(110);
    /// A property name with a bad character.
    PROPERTY_NAME = error(111);
    /// A label given twice.
    DUPLICATE_LABEL = error(112);
    /// A reference to a node that does not exist.
    REFERENCE = error(113);
    /// A deletion of something that does not exist.
    DELETE = error(114);
    /// A phandle that is not usable or used twice.
    PHANDLE = error(115);
    /// A subnode with the name of a property of its parent.
    NODE_LIKE_PROPERTY = warning(116);
    /// An overlay.
    OVERLAY = error(117);
    /// Nodes nested too deep.
    DEPTH = error(118);
    /// A name that strict readers refuse.
    LONG_NAME = warning(122);
    /// The source says `#error`.
    SAYS_ERROR = error(123);
    /// The source says `#warning`.
    SAYS_WARNING = warning(123);
    /// A device tree blob that cannot be read.
    BLOB = error(124);
}
