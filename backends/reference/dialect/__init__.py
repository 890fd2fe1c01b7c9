"""Plain NumPy on tracers: its functions by its own signatures, its ufuncs and their methods, and SciPy's ufuncs.

- `functions`   what `__array_function__` calls           - `ufuncs`     what `__array_ufunc__` calls
- `shapes`, `statistics`, `numeric`   NumPy's functions where their signatures are not the standard's
"""
