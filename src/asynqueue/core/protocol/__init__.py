"""What crosses a link, and what each side may send."""
