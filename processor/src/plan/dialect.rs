//! The SQL dialect of job files: Spark's, except that an interval may name its unit inside the quotes.

use datafusion::sql::sqlparser::ast::Expr;
use datafusion::sql::sqlparser::dialect::{Dialect, SparkSqlDialect};
use datafusion::sql::sqlparser::parser::{Parser, ParserError};

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

    fn parse_infix(&self, parser: &mut Parser, expr: &Expr, precedence: u8) -> Option<Result<Expr, ParserError>> {
        self.0.parse_infix(parser, expr, precedence)
    }
}
