//! The SQL dialect of job files: Spark's, except that an interval may name its unit inside the quotes, and that a
//! table may be an argument of a function, as in Flink's `TUMBLE(TABLE t, …)`.

use datafusion::sql::sqlparser::ast::{Expr, Ident, ObjectNamePart};
use datafusion::sql::sqlparser::dialect::{Dialect, SparkSqlDialect};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Token;

/// What stands before the name of a table that is an argument.
pub(super) const TABLE: &str = "TABLE";

/// Wraps the Spark dialect of sqlparser, which refuses `INTERVAL '10 minutes'`.
#[derive(Debug, Default)]
pub(crate) struct JobDialect(SparkSqlDialect);

macro_rules! as_spark {
    ($($method:ident),* $(,)?) => { $(fn $method(&self) -> bool { self.0.$method() })* };
}

impl Dialect for JobDialect {
    // Tests of the form `dialect_of!(SparkSqlDialect)` inside the parser keep working.
    fn dialect(&self) -> std::any::TypeId {
        self.0.dialect()
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        self.0.is_delimited_identifier_start(ch)
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        self.0.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        self.0.is_identifier_part(ch)
    }

    as_spark!(
        supports_filter_during_aggregation,
        supports_group_by_expr,
        supports_group_by_with_modifier,
        supports_lambda_functions,
        supports_select_wildcard_except,
        supports_struct_literal,
        supports_nested_comments,
        supports_create_table_using,
        supports_long_type_as_bigint,
        supports_values_as_table_factor,
        supports_bang_not_operator,
        supports_select_item_multi_column_alias,
        supports_cte_without_as,
        supports_map_literal_with_angle_brackets,
    );

    fn require_interval_qualifier(&self) -> bool {
        false
    }

    fn parse_prefix(&self, parser: &mut Parser) -> Option<Result<Expr, ParserError>> {
        is_table_argument(parser).then(|| table_argument(parser))
    }

    fn parse_infix(&self, parser: &mut Parser, expr: &Expr, precedence: u8) -> Option<Result<Expr, ParserError>> {
        self.0.parse_infix(parser, expr, precedence)
    }
}

/// Whether `TABLE name` stands first among arguments, or after `=>`; elsewhere `table` may be a column.
fn is_table_argument(parser: &Parser) -> bool {
    if !parser.peek_keyword(Keyword::TABLE)
        || !matches!(parser.get_current_token().token, Token::LParen | Token::RArrow)
    {
        return false;
    }
    let mut at = 1;
    while let Token::Word(_) = parser.peek_nth_token_ref(at).token {
        match parser.peek_nth_token_ref(at + 1).token {
            Token::Period => at += 2,
            Token::Comma | Token::RParen => return true,
            _ => return false,
        }
    }
    false
}

fn table_argument(parser: &mut Parser) -> Result<Expr, ParserError> {
    let table = parser.parse_identifier()?;
    let name = parser.parse_object_name(false)?;
    let parts: Vec<Ident> = name.0.iter().filter_map(ObjectNamePart::as_ident).cloned().collect();
    let prefix = Ident::with_span(table.span, TABLE);
    Ok(Expr::Prefixed { prefix, value: Box::new(Expr::CompoundIdentifier(parts)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(sql: &str) -> String {
        match Parser::parse_sql(&JobDialect::default(), sql) {
            Ok(statements) => statements.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_table_may_be_an_argument_by_place_or_by_name() {
        for sql in [
            "SELECT * FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '10' MINUTE))",
            "SELECT * FROM TABLE(TUMBLE(DATA => TABLE a.b.t, TIMECOL => DESCRIPTOR(ts), SIZE => '1 hour'))",
            "SELECT * FROM TUMBLE(TABLE t)",
        ] {
            assert_eq!(parsed(sql), sql);
        }
    }

    #[test]
    fn a_column_may_still_be_called_table() {
        assert_eq!(parsed("SELECT table, max(table) FROM t"), "SELECT table, max(table) FROM t");
        assert_eq!(parsed("SELECT a, table b, c FROM t"), "SELECT a, table AS b, c FROM t");
    }

    #[test]
    fn an_interval_names_its_unit_inside_or_outside_the_quotes() {
        for sql in ["SELECT INTERVAL '10' MINUTES", "SELECT INTERVAL '10 minutes'", "SELECT INTERVAL '1' HOUR"] {
            assert_eq!(parsed(sql), sql);
        }
    }
}
