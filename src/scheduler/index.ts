/** The scheduler's one door. See README.md for the loop that drives it. */
export * from "./contract.ts";
export { Scheduler } from "./scheduler.ts";
