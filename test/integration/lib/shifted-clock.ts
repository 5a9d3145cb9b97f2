/** A wall clock that can be set, for who imports this first. */
const { now } = Date;
export const shift = { ms: 0 };
Date.now = () => now() + shift.ms;
