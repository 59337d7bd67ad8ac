//! From a PostgreSQL type to the lake type, and its printed name.
//!
//! # Invariants
//! - A type that the lake cannot hold exactly is a [`ColumnType::Carrier`].
//! - The printed name of a built-in type is what `format_type` prints, so that a shape seen in the stream equals the one that the
//!   catalog shows.
//!
//! # Source
//! `pg_type.dat` and `format_type.c` of PostgreSQL 18; the numbers of built-in types never change.

use change_event::ColumnType;

/// Offset of a length in a type modifier: the size of a `varlena` header.
const TYPMOD_HEADER: i32 = 4;

/// The largest precision of a decimal in Iceberg.
const DECIMAL_PRECISION_MAX: u32 = 38;

const BOOL: u32 = 16;
const BYTEA: u32 = 17;
const CHAR: u32 = 18;
const NAME: u32 = 19;
const INT8: u32 = 20;
const INT2: u32 = 21;
const INT4: u32 = 23;
const TEXT: u32 = 25;
const OID: u32 = 26;
const FLOAT4: u32 = 700;
const FLOAT8: u32 = 701;
const BPCHAR: u32 = 1042;
const VARCHAR: u32 = 1043;
const DATE: u32 = 1082;
const TIME: u32 = 1083;
const TIMESTAMP: u32 = 1114;
const TIMESTAMPTZ: u32 = 1184;
const INTERVAL: u32 = 1186;
const TIMETZ: u32 = 1266;
const BIT: u32 = 1560;
const VARBIT: u32 = 1562;
const NUMERIC: u32 = 1700;
const UUID: u32 = 2950;

/// The lake type of a column of this type and modifier.
#[must_use]
pub fn column_type(type_oid: u32, typmod: i32) -> ColumnType {
    match type_oid {
        BOOL => ColumnType::Boolean,
        INT2 | INT4 => ColumnType::Int,
        INT8 | OID => ColumnType::Long,
        FLOAT4 => ColumnType::Float,
        FLOAT8 => ColumnType::Double,
        NUMERIC => decimal(typmod).unwrap_or(ColumnType::Carrier),
        TEXT | VARCHAR | BPCHAR | NAME | CHAR => ColumnType::String,
        BYTEA => ColumnType::Binary,
        DATE => ColumnType::Date,
        TIME => ColumnType::Time,
        TIMESTAMP => ColumnType::Timestamp,
        TIMESTAMPTZ => ColumnType::TimestampTz,
        UUID => ColumnType::Uuid,
        _ => ColumnType::Carrier,
    }
}

/// A decimal, unless precision and scale are open, or the lake has no such decimal.
fn decimal(typmod: i32) -> Option<ColumnType> {
    let (precision, scale) = precision_and_scale(typmod)?;
    let scale = u32::try_from(scale).ok()?;
    (scale <= precision && (1..=DECIMAL_PRECISION_MAX).contains(&precision))
        .then_some(ColumnType::Decimal { precision, scale })
}

/// Precision and scale of a `numeric`; the scale is negative or larger than the precision since PostgreSQL 15.
fn precision_and_scale(typmod: i32) -> Option<(u32, i32)> {
    let packed = typmod
        .checked_sub(TYPMOD_HEADER)
        .filter(|packed| *packed >= 0)?;
    let precision = u32::try_from(packed >> 16 & 0xFFFF).ok()?;
    // Eleven bits with a sign.
    Some((precision, ((packed & 0x7FF) ^ 0x400) - 0x400))
}

/// The name of a built-in type as `format_type` prints it, or `None` for any other, which only the catalog can name.
#[must_use]
pub fn builtin_type_name(type_oid: u32, typmod: i32) -> Option<String> {
    if let Some((_, element)) = BUILTIN_ARRAYS.iter().find(|(array, _)| *array == type_oid) {
        return scalar_name(*element, typmod).map(|name| format!("{name}[]"));
    }
    scalar_name(type_oid, typmod)
}

fn scalar_name(type_oid: u32, typmod: i32) -> Option<String> {
    let length = typmod
        .checked_sub(TYPMOD_HEADER)
        .filter(|length| *length >= 0);
    let with = |name: &str, modifier: Option<i32>| match modifier {
        Some(modifier) => format!("{name}({modifier})"),
        None => name.to_owned(),
    };
    let digits = (typmod >= 0).then_some(typmod);
    let name = match type_oid {
        NUMERIC => match precision_and_scale(typmod) {
            Some((precision, scale)) => format!("numeric({precision},{scale})"),
            None => "numeric".to_owned(),
        },
        VARCHAR => with("character varying", length),
        BPCHAR if length.is_none() => "bpchar".to_owned(),
        BPCHAR => with("character", length),
        // Without a modifier the catalog quotes the word: it is no `bit(1)`.
        BIT if digits.is_none() => "\"bit\"".to_owned(),
        BIT => with("bit", digits),
        VARBIT => with("bit varying", digits),
        TIME => format!("{} without time zone", with("time", digits)),
        TIMETZ => format!("{} with time zone", with("time", digits)),
        TIMESTAMP => format!("{} without time zone", with("timestamp", digits)),
        TIMESTAMPTZ => format!("{} with time zone", with("timestamp", digits)),
        // Fields and precision are packed; the catalog prints them.
        INTERVAL if digits.is_some() => return None,
        _ => PLAIN_NAMES
            .iter()
            .find(|(oid, _)| *oid == type_oid)
            .map(|(_, n)| (*n).to_owned())?,
    };
    Some(name)
}

/// Built-in types without a modifier that users' tables hold.
const PLAIN_NAMES: [(u32, &str); 41] = [
    (BOOL, "boolean"),
    (BYTEA, "bytea"),
    (CHAR, "\"char\""),
    (NAME, "name"),
    (INT8, "bigint"),
    (INT2, "smallint"),
    (INT4, "integer"),
    (TEXT, "text"),
    (OID, "oid"),
    (27, "tid"),
    (28, "xid"),
    (29, "cid"),
    (114, "json"),
    (142, "xml"),
    (600, "point"),
    (601, "lseg"),
    (602, "path"),
    (603, "box"),
    (604, "polygon"),
    (628, "line"),
    (650, "cidr"),
    (FLOAT4, "real"),
    (FLOAT8, "double precision"),
    (718, "circle"),
    (774, "macaddr8"),
    (790, "money"),
    (829, "macaddr"),
    (869, "inet"),
    (DATE, "date"),
    (INTERVAL, "interval"),
    (UUID, "uuid"),
    (3220, "pg_lsn"),
    (3614, "tsvector"),
    (3615, "tsquery"),
    (3802, "jsonb"),
    (3904, "int4range"),
    (3906, "numrange"),
    (3908, "tsrange"),
    (3910, "tstzrange"),
    (3912, "daterange"),
    (3926, "int8range"),
];

/// Array types and their elements.
const BUILTIN_ARRAYS: [(u32, u32); 26] = [
    (1000, BOOL),
    (1001, BYTEA),
    (1002, CHAR),
    (1003, NAME),
    (1016, INT8),
    (1005, INT2),
    (1007, INT4),
    (1009, TEXT),
    (1028, OID),
    (199, 114),
    (143, 142),
    (1021, FLOAT4),
    (1022, FLOAT8),
    (791, 790),
    (1040, 829),
    (1041, 869),
    (651, 650),
    (1014, BPCHAR),
    (1015, VARCHAR),
    (1182, DATE),
    (1183, TIME),
    (1115, TIMESTAMP),
    (1185, TIMESTAMPTZ),
    (1231, NUMERIC),
    (2951, UUID),
    (3807, 3802),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn numeric(precision: i32, scale: i32) -> i32 {
        (precision << 16 | (scale & 0x7FF)) + TYPMOD_HEADER
    }

    #[test]
    fn numeric_within_the_lake_is_a_decimal_and_any_other_a_carrier() {
        let decimal = |precision, scale| ColumnType::Decimal { precision, scale };
        assert_eq!(column_type(NUMERIC, numeric(10, 2)), decimal(10, 2));
        assert_eq!(column_type(NUMERIC, numeric(38, 38)), decimal(38, 38));
        for typmod in [-1, numeric(39, 2), numeric(5, -2), numeric(3, 5)] {
            assert_eq!(
                column_type(NUMERIC, typmod),
                ColumnType::Carrier,
                "{typmod}"
            );
        }
        assert_eq!(
            builtin_type_name(NUMERIC, numeric(5, -2)).as_deref(),
            Some("numeric(5,-2)")
        );
    }

    #[test]
    fn modifier_of_text_is_only_printed() {
        assert_eq!(column_type(VARCHAR, 14), ColumnType::String);
        assert_eq!(
            builtin_type_name(VARCHAR, 14).as_deref(),
            Some("character varying(10)")
        );
        assert_eq!(
            builtin_type_name(1015, 14).as_deref(),
            Some("character varying(10)[]")
        );
        assert_eq!(column_type(1015, 14), ColumnType::Carrier);
    }

    #[test]
    fn unknown_type_is_a_carrier_without_a_name() {
        assert_eq!(column_type(99_999, -1), ColumnType::Carrier);
        assert_eq!(builtin_type_name(99_999, -1), None);
    }
}
