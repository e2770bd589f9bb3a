"""Checks JSON lines against a JSON Schema: schema.py SCHEMA ROWS. Prints how many rows hold; fails at the first that does not."""

import json
import sys

import jsonschema

with open(sys.argv[1], encoding="utf-8") as file:
    schema = json.load(file)
jsonschema.Draft202012Validator.check_schema(schema)
validator = jsonschema.Draft202012Validator(schema)
count = 0
with open(sys.argv[2], encoding="utf-8") as rows:
    for row in rows:
        validator.validate(json.loads(row))
        count += 1
print(count)
