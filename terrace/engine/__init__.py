"""Operations as tuples of steps, and the worker that carries them out exactly once or undoes them."""
