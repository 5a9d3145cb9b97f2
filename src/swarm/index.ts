/** The swarm's one door. See README.md for the loop that drives it. */
export { brokenInvariants } from "./broken-invariants.ts";
export * from "./contract.ts";
export type { TaskIntake } from "./intake.ts";
export { placeShareOf } from "./place-share.ts";
export { Swarm } from "./swarm.ts";
