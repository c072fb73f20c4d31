//! What things cost. The measurements stand in `benches/`; `README.md` says what each is and what it found.
