import type { AppError } from "../../base/errors.ts";
import { isCredentialHeader } from "../../origin/http-exchange.ts";
import type { Source } from "../../protocol/control-messages.ts";
import { dropVolatileParameters } from "./volatile-parameters.ts";

/**
 * Whether who asks brings something that opens the file to him and not to everybody: credentials in headers or in the
 * URL, or a signed address. The origin may take it back.
 */
export function isPrivateSource({ url, headers }: Source): boolean {
  if (Object.entries(headers).some(([name, value]) => value !== "" && isCredentialHeader(name))) return true;
  const { username = "", password = "" } = URL.parse(url) ?? {};
  return username !== "" || password !== "" || isSignedAddress(url);
}

/**
 * Whether the origin's refusal may come of the age of what the caller brings, and not of his rights: a Bearer token lives
 * some minutes, a signed address as long as it says. A registry that says `insufficient_scope` has read the token.
 */
export function mayHaveRunOut({ url, headers }: Source, { code, details }: AppError): boolean {
  if (isSignedAddress(url)) return code === "ORIGIN_FORBIDDEN" || code === "ORIGIN_UNAUTHORIZED" || details["status"] === 400;
  if (code !== "ORIGIN_UNAUTHORIZED" || !/^bearer /i.test(headers["authorization"] ?? "")) return false;
  return !/insufficient_scope/.test(String(details["wwwAuthenticate"] ?? ""));
}

function isSignedAddress(url: string): boolean {
  const parsed = URL.parse(url);
  if (parsed === null) return false;
  const { href } = parsed;
  dropVolatileParameters(parsed, []);
  return parsed.href !== href;
}
