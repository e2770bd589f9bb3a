//! `GROUPING SETS`, `ROLLUP` and `CUBE` as a union of plain aggregates, one for each set.

use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::logical_expr::utils::{enumerate_grouping_sets, grouping_set_to_exprlist};
use datafusion::logical_expr::{Aggregate, Expr, GroupingSet, LogicalPlan, LogicalPlanBuilder, cast, lit};

use crate::error::{Error, Result};

/// The union that an aggregate over grouping sets is; none when it has no such sets.
pub(crate) fn expand_grouping_sets(aggregate: &Aggregate) -> Result<Option<LogicalPlan>> {
    if !matches!(aggregate.group_expr.as_slice(), [Expr::GroupingSet(_)]) {
        return Ok(None);
    }
    let sets = match enumerate_grouping_sets(aggregate.group_expr.clone())?.as_slice() {
        [Expr::GroupingSet(GroupingSet::GroupingSets(sets))] => sets.clone(),
        [Expr::GroupingSet(GroupingSet::Rollup(keys))] => (0..=keys.len()).map(|n| keys[..n].to_vec()).collect(),
        [Expr::GroupingSet(GroupingSet::Cube(keys))] => (0..1_usize << keys.len())
            .map(|mask| keys.iter().enumerate().filter(|(at, _)| mask >> at & 1 == 1).map(|(_, k)| k.clone()).collect())
            .collect(),
        _ => return Err(Error::internal("grouping sets of an unknown form")),
    };
    let keys: Vec<Expr> = grouping_set_to_exprlist(&aggregate.group_expr)?.into_iter().cloned().collect();
    let mut union: Option<LogicalPlanBuilder> = None;
    for set in sets {
        let built = LogicalPlanBuilder::from(Arc::clone(&aggregate.input))
            .aggregate(set.clone(), aggregate.aggr_expr.clone())?;
        let computed = built.schema().columns();
        // A key outside the set is NULL; `__grouping_id` has a bit for each, the last key's lowest.
        let mut id = 0_u64;
        let mut row = Vec::with_capacity(aggregate.schema.fields().len());
        for (at, (qualifier, field)) in aggregate.schema.iter().enumerate() {
            let value = if let Some(key) = keys.get(at) {
                let inside = set.iter().position(|other| other == key);
                id = id << 1 | u64::from(inside.is_none());
                match inside {
                    Some(position) => Expr::Column(computed[position].clone()),
                    None => lit(ScalarValue::try_from(field.data_type())?),
                }
            } else if at == keys.len() {
                cast(lit(id), field.data_type().clone())
            } else {
                Expr::Column(computed[set.len() + at - keys.len() - 1].clone())
            };
            row.push(value.alias_qualified(qualifier.cloned(), field.name()));
        }
        let built = built.project(row)?;
        union = Some(match union {
            None => built,
            Some(before) => before.union(built.build()?)?,
        });
    }
    let union = union.ok_or_else(|| Error::job("GROUPING SETS without a set"))?;
    // A union forgets qualifiers that differ; the plans above use the aggregate's own.
    let columns = union.schema().columns();
    let restored = columns
        .into_iter()
        .zip(aggregate.schema.iter())
        .map(|(column, (qualifier, field))| Expr::Column(column).alias_qualified(qualifier.cloned(), field.name()));
    let restored: Vec<Expr> = restored.collect();
    Ok(Some(union.project(restored)?.build()?))
}
