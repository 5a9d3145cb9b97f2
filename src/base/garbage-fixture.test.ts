/** For tests of what is let go of. */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

/** All of this thread's; memory outside of V8's heap is given back soon after. */
export const collectGarbage: () => void = ((): (() => void) => {
  setFlagsFromString("--expose-gc");
  return runInNewContext("gc") as () => void;
})();
