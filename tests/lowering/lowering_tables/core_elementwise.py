"""Core operations on elements, and their reductions."""

from .core import ARITHMETIC, PROMOTED, Core, Host, number, one, two

PROMOTING = [
    "acos", "acosh", "asin", "asinh", "atan", "atanh", "cos", "cosh", "erf", "exp", "expm1", "log", "log10", "log1p",
    "log2", "reciprocal", "rsqrt", "sigmoid", "sin", "sinh", "sqrt", "tan", "tanh",
]  # fmt: skip

CORE = [
    *(Core(f"{name}.default", one, name, f"typecast {name}") for name in PROMOTING),
    *(
        Core(f"{name}.default", one, name, ARITHMETIC, None)
        for name in ("abs", "ceil", "floor", "hardtanh", "neg", "relu", "round", "trunc")
    ),
    *(
        Core(f"{name}.{overload}", sample, name, f"{name} typecast")
        for name in ("eq", "ge", "gt", "le", "lt", "ne")
        for overload, sample in [("Scalar", number), ("Tensor", two)]
    ),
    *(
        Core(f"bitwise_{name}.Scalar", lambda make: (make(3, 40), True), None, ARITHMETIC, f"fill logical_{name}")
        for name in ("and", "or", "xor")
    ),
    Core("add.Scalar", number, "add", ARITHMETIC, PROMOTED),
    Core("add.Tensor", two, "add", ARITHMETIC, "logical_or"),
    Core("alias.default", one, ""),
    Core("any.default", one, "ne max", "ne typecast max", "max"),
    Core("atan2.default", two, "atan2", "typecast typecast atan2"),
    Core("bitwise_and.Tensor", two, None, ARITHMETIC, "logical_and"),
    Core("bitwise_not.default", one, None, ARITHMETIC, "eqz"),
    Core("bitwise_or.Tensor", two, None, ARITHMETIC, "logical_or"),
    Core("bitwise_xor.Tensor", two, None, ARITHMETIC, "logical_xor"),
    Core("clone.default", one, "clone"),
    Core("div.Scalar", number, "divide", "typecast divide"),
    Core("div.Tensor", two, "divide", "typecast typecast divide"),
    Core("elu.default", one, "elu", None, None),
    Core("fill.Scalar", number, ""),
    Core("fmod.Scalar", number, "fmod", ARITHMETIC, PROMOTED),
    Core("fmod.Tensor", two, "fmod", None, None),
    Core("full_like.default", number, ""),
    Core("gelu.default", one, "gelu", None, None),
    Core("isinf.default", one, "isinf", ARITHMETIC),
    Core("isnan.default", one, "isnan", ARITHMETIC),
    Core("leaky_relu.default", one, "leaky_relu", None, None),
    Core("logical_and.default", two, "logical_and", "nez typecast nez typecast logical_and"),
    Core("logical_not.default", one, "eqz", "eqz typecast"),
    Core("logical_or.default", two, "logical_or", "nez typecast nez typecast logical_or"),
    Core("logical_xor.default", two, "logical_xor", "nez typecast nez typecast logical_xor"),
    Core("maximum.default", two, "maximum", ARITHMETIC),
    Core("mean.default", one, "mean", None, None),
    Core("minimum.default", two, "minimum", ARITHMETIC),
    Core("mul.Scalar", number, "multiply", ARITHMETIC, PROMOTED),
    Core("mul.Tensor", two, "multiply", ARITHMETIC),
    Core("nonzero.default", one, Host()),
    Core("pow.Tensor_Scalar", number, "multiply", ARITHMETIC, PROMOTED),
    Core("pow.Tensor_Tensor", two, "typecast typecast pow typecast", ARITHMETIC, None),
    Core("prod.default", one, "typecast permute reshape cumprod slice reshape reshape cumprod slice reshape typecast",
        ARITHMETIC, "min typecast"),
    Core("remainder.Scalar", number, "remainder", ARITHMETIC, PROMOTED),
    Core("remainder.Tensor", two, "remainder", None, None),
    Core("sign.default", one, "sign", ARITHMETIC),
    Core("sort.default", one, "typecast sort typecast typecast", ARITHMETIC),
    Core("sub.Scalar", number, "subtract", ARITHMETIC, None),
    Core("sub.Tensor", two, "subtract", ARITHMETIC, None),
    Core("sym_is_contiguous.default", one, ""),
    Core("sym_numel.default", one, ""),
    Core("sym_storage_offset.default", one, ""),
]  # fmt: skip
