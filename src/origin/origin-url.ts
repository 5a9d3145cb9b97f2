import { AppError } from "../base/errors.ts";

/**
 * Parses the address of a file on an origin.
 *
 * @returns the parsed URL, http or https, userinfo still in it (see {@link takeUserinfo}), the fragment dropped
 * @throws AppError URL_INVALID, SCHEME_UNSUPPORTED (neither retriable)
 */
export function parseOriginUrl(text: string): URL {
  const url = URL.parse(text);
  if (url === null) {
    throw new AppError(
      "URL_INVALID",
      `cannot parse the URL "${redactUrl(text)}"; write it whole, as in https://host/path`,
    );
  }
  if (url.protocol !== "http:" && url.protocol !== "https:") {
    throw new AppError(
      "SCHEME_UNSUPPORTED",
      `cannot fetch ${redactUrl(text)}: the scheme "${url.protocol.slice(0, -1)}" is not one of http, https; ` +
        "write the URL whole, as in https://host/path",
    );
  }
  url.hash = "";
  return url;
}

/**
 * A URL fit for messages and logs: no userinfo, no fragment, and `?…` in place of the query, which may be signed.
 * Takes any text; what does not parse is cut at its first `?` or `#` and kept to 200 characters.
 */
export function redactUrl(input: string | URL): string {
  const url = typeof input === "string" ? URL.parse(input) : input;
  if (url === null || url.host === "") return redactText(String(input));
  return `${url.protocol}//${url.host}${url.pathname}${url.search === "" ? "" : "?…"}`;
}

function redactText(text: string): string {
  const head = text.split(/[?#]/, 1)[0] ?? "";
  // Everything up to an "@" may be a password: of a text we could not parse, only what follows it is shown.
  const bare = head.slice(head.lastIndexOf("@") + 1);
  const printable = bare.replaceAll(/\p{Cc}/gu, "").slice(0, URL_TEXT_CHARS_MAX);
  return head.length === text.length ? printable : `${printable}?…`;
}

/**
 * Removes `user:password@` from `url`, in place.
 *
 * @returns the `Authorization: Basic` value it stands for, `undefined` when there was none
 * @throws AppError URL_INVALID when its percent-encoding is broken (not retriable)
 */
export function takeUserinfo(url: URL): string | undefined {
  if (url.username === "" && url.password === "") return undefined;
  const { username, password } = url;
  url.username = "";
  url.password = "";
  try {
    return basicAuthorization(decodeURIComponent(username), decodeURIComponent(password));
  } catch (cause) {
    throw new AppError(
      "URL_INVALID",
      `cannot decode the user or password in the URL of ${redactUrl(url)}; percent-encode each special character`,
      { cause },
    );
  }
}

/** The value of an `Authorization` header of the Basic scheme, in UTF-8. Source: RFC 7617. */
export function basicAuthorization(username: string, password: string): string {
  return `Basic ${Buffer.from(`${username}:${password}`, "utf8").toString("base64")}`;
}

/** Enough to recognise a mistyped address, little enough for one line of a log. */
const URL_TEXT_CHARS_MAX = 200;
