"""The checks of a derivative rule: points, borders, linearity, layouts, second order, and the report."""
