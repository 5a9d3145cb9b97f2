/** The dfget program: the command, and its code as V8 compiled it for an earlier call. */
import { keepClientCode } from "./compiled-code.ts";

keepClientCode();
const { runDfget } = await import("./dfget-command.ts");
process.exit(await runDfget(process.argv.slice(2)));
