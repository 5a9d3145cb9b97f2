import { isCredentialHeader } from "../../origin/http-exchange.ts";
import type { Source } from "../../protocol/control-messages.ts";
import { dropVolatileParameters } from "./volatile-parameters.ts";

/**
 * Whether who asks brings something that opens the file to him and not to everybody: credentials in headers or in the
 * URL, or a signed address. The origin may take it back.
 */
export function isPrivateSource({ url, headers }: Source): boolean {
  if (Object.entries(headers).some(([name, value]) => value !== "" && isCredentialHeader(name))) return true;
  const parsed = URL.parse(url);
  if (parsed === null) return false;
  const { href } = parsed;
  dropVolatileParameters(parsed, []);
  return parsed.username !== "" || parsed.password !== "" || parsed.href !== href;
}
