"""Operations: what is outstanding, how fresh gold is, who is told, and how much error budget is left."""
