"""Arithmetic in SQL, done on arrays: a feature of millions of rows in a fraction of DuckDB's time.

What belongs here: reading expressions with DuckDB's own parser, and the operations whose results IEEE 754
lays down to the last bit, so that an array holds what DuckDB would have given. What does not: any other
function, for which DuckDB is asked, and where the columns come from (row_arrays.py).

Columns are named `alias.name`, as the SQL names them. NULL stands as NaN in the arrays; the relations hold no
NaN of their own.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import duckdb
import numpy as np

from turnover_assets.core.models.base import Floats

Operation = Callable[..., Any]
_Node = dict[str, Any]
_Tree = tuple[Any, ...]  # the name of an operation and the trees that it is given

_FUNCTIONS: dict[str, Operation] = {  # of two values
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "least": np.fmin,  # as in SQL, what is missing does not count
    "greatest": np.fmax,
    "nullif": lambda value, other: np.where(value == other, np.nan, value),
}
_CONDITIONS: dict[str, Operation] = {
    "OPERATOR_IS_NULL": np.isnan,
    "OPERATOR_IS_NOT_NULL": lambda value: ~np.isnan(value),
    "CONJUNCTION_AND": np.logical_and,
    "CONJUNCTION_OR": np.logical_or,
    "COMPARE_EQUAL": np.equal,
    "COMPARE_GREATERTHAN": np.greater,
    "COMPARE_GREATERTHANOREQUALTO": np.greater_equal,
    "COMPARE_LESSTHAN": np.less,
    "COMPARE_LESSTHANOREQUALTO": np.less_equal,
}
_OPERATIONS: dict[str, Operation] = {
    **_FUNCTIONS,
    **_CONDITIONS,
    "CASE": np.where,
    "COALESCE": lambda value, other: np.where(np.isnan(value), other, value),
    "AS NUMBER": lambda condition: condition.astype(np.float64),
}
LEAVES = ("column", "constant")  # the trees that are given no others
_WHOLE = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT"}
_MISSING: _Tree = ("constant", np.nan)


class Arithmetic:
    """Expressions as one list of steps, of which each uses the results of earlier ones.

    What several expressions have in common is a step of its own, done once.

    Attributes:
        reads: The columns to be given.
        results: Names of the expressions that can be evaluated; the others are left to DuckDB.

    Example:
        >>> types = {"k.a": "DOUBLE", "r.b": "DOUBLE"}
        >>> found = Arithmetic(duckdb.connect(), {"f": "k.a / nullif(r.b, 0)", "g": "ln(k.a)"}, types)
        >>> found.results, found.reads
        (('f',), ('k.a', 'r.b'))
        >>> columns = {"k.a": np.array([3.0, 1.0]), "r.b": np.array([2.0, 0.0])}
        >>> dict(found.evaluate(columns.__getitem__))
        {'f': array([1.5, nan])}
    """

    def __init__(
        self, con: duckdb.DuckDBPyConnection, expressions: Mapping[str, str], types: Mapping[str, str]
    ) -> None:
        """Read the expressions.

        Args:
            con: Any connection; it parses.
            expressions: SQL by name.
            types: DuckDB's type of every column that the expressions read.
        """
        self._types = types
        self._steps: list[_Tree] = []
        self._places: dict[_Tree, int] = {}
        self._found: dict[str, int] = {}
        for name, node in zip(expressions, _parsed(con, expressions.values()), strict=True):
            with suppress(_NotArithmeticError):
                self._found[name] = self._place(self._value(node))
        self.results = tuple(self._found)
        self.reads: tuple[str, ...] = tuple(step[1] for step in self._steps if step[0] == "column")
        self._plan = list(self._planned())

    def evaluate(self, columns: Callable[[str], Floats]) -> Iterator[tuple[str, Floats]]:
        """The name and value of each expression that can be evaluated.

        A column is asked for where it is first needed, and nothing is kept longer than it is needed, so that
        little memory is used again and again.

        Args:
            columns: Gives a column; all are of one length, in double precision, with NaN for NULL.
        """
        done: dict[int, Any] = {}
        with np.errstate(divide="ignore", invalid="ignore"):
            for place, ((kind, *given), names, over) in enumerate(self._plan):
                if kind == "column":
                    done[place] = columns(given[0])
                elif kind == "constant":
                    done[place] = given[0]
                else:
                    done[place] = _OPERATIONS[kind](*(done[part] for part in given))
                for name in names:
                    yield name, done[place]
                for part in over:
                    del done[part]

    def _planned(self) -> Iterator[tuple[_Tree, list[str], list[int]]]:
        """Each step, the expressions that it completes, and the steps whose results it is the last to use."""
        completed: dict[int, list[str]] = {}
        for name, place in self._found.items():
            completed.setdefault(place, []).append(name)
        last: dict[int, int] = {}
        for place, (kind, *given) in enumerate(self._steps):
            last |= dict.fromkeys([place] if kind in LEAVES else [place, *given], place)
        over: dict[int, list[int]] = {}
        for place, at in last.items():
            over.setdefault(at, []).append(place)
        for place, step in enumerate(self._steps):
            yield step, completed.get(place, []), over.get(place, [])

    def _place(self, tree: _Tree) -> int:
        """Where the result of a tree stands among those of the steps, which are added as needed."""
        if tree not in self._places:
            kind, *given = tree
            step = tree if kind in LEAVES else (kind, *(self._place(part) for part in given))
            self._places[tree] = len(self._steps)
            self._steps.append(step)
        return self._places[tree]

    def _value(self, node: _Node) -> _Tree:
        match node["class"], node["type"]:
            case "COLUMN_REF", _:
                return self._column(".".join(node["column_names"]))
            case "CONSTANT", _:
                return _constant(node["value"])
            case "FUNCTION", _ if node["function_name"] in _FUNCTIONS and len(node["children"]) == 2:
                given = [self._value(child) for child in node["children"]]
                return node["function_name"], *_not_all_constant(given)
            case "OPERATOR", "OPERATOR_COALESCE":
                *others, found = [self._value(child) for child in node["children"]]
                for value in reversed(others):
                    found = "COALESCE", value, found
                return found
            case "CASE", _:
                found = self._value(node["else_expr"])
                for check in reversed(node["case_checks"]):
                    asked, then = self._condition(check["when_expr"]), self._value(check["then_expr"])
                    found = "CASE", asked, then, found
                return found
            case "CAST", _:
                return self._cast(node["child"], node["cast_type"]["id"])
        raise _NotArithmeticError

    def _cast(self, child: _Node, to: str) -> _Tree:
        if to == "DOUBLE":
            return self._value(child)
        if to in _WHOLE and child["type"] in ("OPERATOR_IS_NULL", "OPERATOR_IS_NOT_NULL"):
            return "AS NUMBER", self._condition(child)
        raise _NotArithmeticError

    def _condition(self, node: _Node) -> _Tree:
        """What a CASE asks, where unknown is as good as false."""
        kind = node["type"]
        if kind not in _CONDITIONS:
            raise _NotArithmeticError
        if node["class"] == "COMPARISON":
            return kind, *_not_all_constant([self._value(node[side]) for side in ("left", "right")])
        if node["class"] == "OPERATOR":
            return kind, *_not_all_constant([self._value(node["children"][0])])
        first, *others = [self._condition(child) for child in node["children"]]
        for other in others:
            first = (kind, first, other)
        return first

    def _column(self, name: str) -> _Tree:
        if self._types.get(name) not in {"DOUBLE", *_WHOLE}:
            raise _NotArithmeticError
        return "column", name


class _NotArithmeticError(Exception):
    """An expression that only DuckDB can evaluate."""


def _parsed(con: duckdb.DuckDBPyConnection, expressions: Iterable[str]) -> list[_Node]:
    """What DuckDB's parser makes of each of the expressions."""
    select = {"sql": f"SELECT {', '.join(expressions)}"}
    said = json.loads(con.execute("SELECT json_serialize_sql($sql)", select).fetchall()[0][0])
    found: list[_Node] = said["statements"][0]["node"]["select_list"]
    return found


def _constant(value: _Node) -> _Tree:
    kind = value["type"]["id"]
    if value["is_null"]:
        return _MISSING
    if kind == "DECIMAL":
        return "constant", value["value"] / 10.0 ** value["type"]["type_info"]["scale"]
    if kind in {"DOUBLE", *_WHOLE}:
        return "constant", float(value["value"])
    raise _NotArithmeticError


def _not_all_constant(given: list[_Tree]) -> list[_Tree]:
    """The same; numbers alone are reckoned in decimals by DuckDB."""
    if all(kind == "constant" for kind, *_ in given):
        raise _NotArithmeticError
    return given
