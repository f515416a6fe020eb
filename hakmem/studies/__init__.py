"""The questions: each a model of parameters, a plan, a judgement and charts, read by a notebook."""
