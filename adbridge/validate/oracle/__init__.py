"""How the referee finds derivatives: difference quotients of a function over Arb balls, or in floats."""
