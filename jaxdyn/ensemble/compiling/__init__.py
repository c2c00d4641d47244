"""One cell as compiled programmes, laid out on devices: knows no plan and no store."""
