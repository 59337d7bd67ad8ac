//! Tables, their columns and their keys.

use std::fmt;

use crate::catalog::Catalog;
use crate::client::{Connection, Row, quote_identifier, quote_literal};
use crate::decode::ReplicaIdentity;
use crate::error::SourceError;
use crate::types::builtin_type_name;

/// A table of the source.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub table: String,
}

impl TableName {
    /// A table.
    #[must_use]
    pub fn new(schema: impl Into<String>, table: impl Into<String>) -> Self {
        Self {
            schema: schema.into(),
            table: table.into(),
        }
    }

    /// Both parts in double quotes, for SQL.
    #[must_use]
    pub fn quoted(&self) -> String {
        format!(
            "{}.{}",
            quote_identifier(&self.schema),
            quote_identifier(&self.table)
        )
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.table)
    }
}

/// What a configuration includes: `schema.table`, or `schema.*` for all of a schema. The first dot separates; no other character
/// is special, and case counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TablePattern {
    /// Schema.
    pub schema: String,
    /// Table; `None` for all of them.
    pub table: Option<String>,
}

impl TablePattern {
    /// Reads a pattern; `None` if it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (schema, table) = text.split_once('.')?;
        if schema.is_empty() || table.is_empty() {
            return None;
        }
        let table = (table != "*").then(|| table.to_owned());
        Some(Self {
            schema: schema.to_owned(),
            table,
        })
    }

    /// Whether it includes the table.
    #[must_use]
    pub fn includes(&self, name: &TableName) -> bool {
        self.schema == name.schema && self.table.as_ref().is_none_or(|table| *table == name.table)
    }
}

impl fmt::Display for TablePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}.{}",
            self.schema,
            self.table.as_deref().unwrap_or("*")
        )
    }
}

/// A table by its number, and the name that it has now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedTable {
    /// Its number.
    pub oid: u32,
    /// Its name.
    pub name: TableName,
}

/// How a table stores rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TableKind {
    /// By itself.
    Plain,
    /// In partitions; they are published as this table.
    Partitioned,
}

/// A column of a table, dropped ones included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogColumn {
    /// Its number, never given again.
    pub attnum: i32,
    /// Its name; of a dropped column, a placeholder.
    pub name: String,
    /// Its type; 0 for a dropped column.
    pub type_oid: u32,
    /// Type modifier, -1 if none.
    pub typmod: i32,
    /// Its type as the source prints it.
    pub type_name: String,
    /// NOT NULL.
    pub not_null: bool,
    /// It was dropped; its number stays taken.
    pub dropped: bool,
    /// Its value is computed.
    pub generated: bool,
}

impl CatalogColumn {
    /// Whether rows are sent with it.
    #[must_use]
    pub const fn is_live(&self) -> bool {
        !self.dropped && !self.generated
    }
}

/// A table as the catalog shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogTable {
    /// Its number.
    pub oid: u32,
    /// Its name.
    pub name: TableName,
    /// How it stores rows.
    pub kind: TableKind,
    /// It is a partition of another table.
    pub partition: bool,
    /// It is logged; an unlogged table cannot be captured.
    pub logged: bool,
    /// What the log holds of old rows.
    pub replica_identity: ReplicaIdentity,
    /// The `attnum`s of the key: of the primary key (default, full), or of the index; empty if there is none.
    pub key_attnums: Vec<i32>,
    /// The role may read it.
    pub readable: bool,
    /// The role owns it, and so may publish it.
    pub owned: bool,
    /// All columns by `attnum`, dropped and generated ones included.
    pub columns: Vec<CatalogColumn>,
}

impl CatalogTable {
    /// The columns that rows are sent with, in order.
    pub fn live_columns(&self) -> impl Iterator<Item = &CatalogColumn> {
        self.columns.iter().filter(|column| column.is_live())
    }

    /// Whether the server lets the application update and delete rows once the table is published.
    #[must_use]
    pub fn identity_is_usable(&self) -> bool {
        match self.replica_identity {
            ReplicaIdentity::Full => true,
            ReplicaIdentity::Default | ReplicaIdentity::Index => !self.key_attnums.is_empty(),
            ReplicaIdentity::Nothing => false,
        }
    }
}

impl Catalog {
    /// The tables that any of the patterns includes, by name: plain and partitioned ones. A partition is only listed if a pattern
    /// names it, for its rows come as those of its root.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn tables(
        &mut self,
        patterns: &[TablePattern],
    ) -> Result<Vec<CatalogTable>, SourceError> {
        let conditions = conditions(patterns);
        if conditions.is_empty() {
            return Ok(Vec::new());
        }
        read_tables(&mut self.connection, &conditions.join(" OR ")).await
    }

    /// Numbers and names of the tables that any of the patterns includes, and of those of the given numbers: what a look from time
    /// to time needs, at the price of one row a table.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn named_tables(
        &mut self,
        patterns: &[TablePattern],
        oids: &[u32],
    ) -> Result<Vec<NamedTable>, SourceError> {
        let mut conditions = conditions(patterns);
        if !oids.is_empty() {
            let list: Vec<String> = oids.iter().map(u32::to_string).collect();
            conditions.push(format!("c.oid IN ({})", list.join(", ")));
        }
        if conditions.is_empty() {
            return Ok(Vec::new());
        }
        let sql = format!(
            "SELECT c.oid, n.nspname, c.relname
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND ({})
             ORDER BY n.nspname, c.relname",
            conditions.join(" OR ")
        );
        let rows = self.connection.query(&sql).await?;
        rows.iter()
            .map(|row| {
                Ok(NamedTable {
                    oid: row.parse(0)?,
                    name: TableName::new(row.text(1)?, row.text(2)?),
                })
            })
            .collect()
    }

    /// One table; `None` if there is none of this name.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn table(&mut self, name: &TableName) -> Result<Option<CatalogTable>, SourceError> {
        read_table(&mut self.connection, name).await
    }

    /// One table by its number, whatever its name now is; `None` if it is gone.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn table_by_oid(&mut self, oid: u32) -> Result<Option<CatalogTable>, SourceError> {
        Ok(read_tables(&mut self.connection, &format!("c.oid = {oid}"))
            .await?
            .pop())
    }
}

/// What a table of `pg_class c` and `pg_namespace n` has to be, one alternative for each pattern.
fn conditions(patterns: &[TablePattern]) -> Vec<String> {
    let condition = |pattern: &TablePattern| {
        let schema = quote_literal(&pattern.schema);
        match &pattern.table {
            Some(table) => format!(
                "(n.nspname = {schema} AND c.relname = {})",
                quote_literal(table)
            ),
            None => format!("(n.nspname = {schema} AND NOT c.relispartition)"),
        }
    };
    patterns.iter().map(condition).collect()
}

/// One table, on any connection: a copy asks inside of its snapshot.
pub(crate) async fn read_table(
    connection: &mut Connection,
    name: &TableName,
) -> Result<Option<CatalogTable>, SourceError> {
    let condition = format!(
        "n.nspname = {} AND c.relname = {}",
        quote_literal(&name.schema),
        quote_literal(&name.table)
    );
    Ok(read_tables(connection, &condition).await?.pop())
}

async fn read_tables(
    connection: &mut Connection,
    condition: &str,
) -> Result<Vec<CatalogTable>, SourceError> {
    // One statement, so that tables and columns are of one moment.
    let sql = format!(
        "SELECT c.oid, n.nspname, c.relname, c.relkind, c.relispartition, c.relpersistence, c.relreplident,
                coalesce((SELECT string_agg(k.attnum::text, ' ' ORDER BY k.place)
                 FROM pg_index i CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, place)
                 WHERE i.indrelid = c.oid AND i.indisvalid AND i.indimmediate AND k.place <= i.indnkeyatts
                   AND CASE WHEN c.relreplident = 'i' THEN i.indisreplident ELSE i.indisprimary END), ''),
                has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'),
                pg_has_role(c.relowner, 'USAGE'),
                a.attnum, a.attname, a.atttypid, a.atttypmod,
                CASE WHEN a.attisdropped THEN '' ELSE format_type(a.atttypid, a.atttypmod) END,
                a.attnotnull, a.attisdropped, a.attgenerated <> ''
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
         WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND ({condition})
         ORDER BY n.nspname, c.relname, a.attnum"
    );
    let mut tables: Vec<CatalogTable> = Vec::new();
    for row in connection.query(&sql).await? {
        let oid: u32 = row.parse(0)?;
        if tables.last().is_none_or(|table| table.oid != oid) {
            tables.push(table_of(&row)?);
        }
        if let Some(table) = tables.last_mut().filter(|_| row.get(10).is_some()) {
            table.columns.push(column_of(&row)?);
        }
    }
    Ok(tables)
}

fn table_of(row: &Row) -> Result<CatalogTable, SourceError> {
    let unexpected = |what| SourceError::UnexpectedAnswer { what };
    let letter = row.get(6).and_then(|text| text.bytes().next());
    let key_attnums = row.text(7)?;
    Ok(CatalogTable {
        oid: row.parse(0)?,
        name: TableName::new(row.text(1)?, row.text(2)?),
        kind: match row.get(3) {
            Some("r") => TableKind::Plain,
            Some("p") => TableKind::Partitioned,
            _ => return Err(unexpected("unknown kind of table")),
        },
        partition: row.flag(4)?,
        logged: row.get(5) == Some("p"),
        replica_identity: letter
            .and_then(ReplicaIdentity::from_letter)
            .ok_or_else(|| unexpected("unknown replica identity"))?,
        key_attnums: key_attnums
            .split_ascii_whitespace()
            .map(|number| {
                number
                    .parse()
                    .map_err(|_source| unexpected("malformed attnum"))
            })
            .collect::<Result<_, _>>()?,
        readable: row.flag(8)?,
        owned: row.flag(9)?,
        columns: Vec::new(),
    })
}

fn column_of(row: &Row) -> Result<CatalogColumn, SourceError> {
    let (type_oid, typmod) = (row.parse(12)?, row.parse(13)?);
    let printed = row.text(14)?;
    Ok(CatalogColumn {
        attnum: row.parse(10)?,
        name: row.text(11)?,
        type_oid,
        typmod,
        type_name: builtin_type_name(type_oid, typmod).unwrap_or(printed),
        not_null: row.flag(15)?,
        dropped: row.flag(16)?,
        generated: row.flag(17)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pattern_names_one_table_or_all_of_a_schema() {
        let orders = TablePattern::parse("public.orders").unwrap();
        assert!(orders.includes(&TableName::new("public", "orders")));
        assert!(!orders.includes(&TableName::new("public", "Orders")));
        let all = TablePattern::parse("sales.*").unwrap();
        assert!(all.includes(&TableName::new("sales", "a.b")));
        assert!(!all.includes(&TableName::new("public", "orders")));
        assert_eq!(all.to_string(), "sales.*");
        for text in ["orders", ".orders", "public."] {
            assert_eq!(TablePattern::parse(text), None, "{text}");
        }
    }
}
