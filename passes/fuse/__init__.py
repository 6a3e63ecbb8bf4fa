"""Operations that TTNN has whole: attention, projections, norms, rotary embedding, activations."""
