/**
 * Query parameters that say who may read a file and until when, but not which file: signatures of object stores.
 *
 * A group's parameters are dropped only where its marker is present, so that `?sp=2` of somebody's own API stays.
 * Sources: the stores' documentation of signed URLs; the set is that of Dragonfly 2 and what Azure and CloudFront add.
 */
interface SignatureScheme {
  /** All must be present. Lower case. */
  readonly markers: readonly string[];
  readonly parameters: readonly string[];
  /** Parameters with this prefix too. */
  readonly prefix?: string;
}

const SCHEMES: readonly SignatureScheme[] = [
  // S3 and its like, SigV4.
  { markers: ["x-amz-signature"], parameters: [], prefix: "x-amz-" },
  // S3, SigV2.
  { markers: ["awsaccesskeyid", "signature"], parameters: ["awsaccesskeyid", "signature", "expires", "x-amz-security-token"] },
  // GCS, V4 and V2.
  { markers: ["x-goog-signature"], parameters: [], prefix: "x-goog-" },
  { markers: ["googleaccessid", "signature"], parameters: ["googleaccessid", "signature", "expires"] },
  // CloudFront.
  { markers: ["key-pair-id", "signature"], parameters: ["key-pair-id", "signature", "expires", "policy"] },
  // Azure SAS.
  {
    markers: ["sig", "sv"],
    parameters: [
      "sig", "sv", "ss", "srt", "sp", "se", "st", "spr", "sr", "si", "sip", "skoid", "sktid", "skt", "ske", "sks", "skv",
      "saoid", "suoid", "scid",
    ],
  },
  // OSS (V1; V4), OBS, COS.
  { markers: ["ossaccesskeyid", "signature"], parameters: ["ossaccesskeyid", "signature", "expires", "security-token", "securitytoken"] },
  { markers: ["x-oss-signature"], parameters: ["x-oss-signature", "x-oss-signature-version", "x-oss-credential", "x-oss-date", "x-oss-expires", "x-oss-security-token", "x-oss-additional-headers"] },
  { markers: ["accesskeyid", "signature"], parameters: ["accesskeyid", "signature", "expires", "x-obs-security-token"] },
  { markers: ["x-obs-signature"], parameters: ["x-obs-signature", "x-obs-algorithm", "x-obs-credential", "x-obs-date", "x-obs-expires", "x-obs-signedheaders", "x-obs-security-token"] },
  {
    markers: ["q-signature"],
    parameters: [
      "q-sign-algorithm", "q-ak", "q-sign-time", "q-key-time", "q-header-list", "q-url-param-list", "q-signature",
      "x-cos-security-token",
    ],
  },
];

/**
 * Removes from `url`, in place, the parameters of known signatures and those that `names` lists (case-sensitive).
 * Order and spelling of the others stay as they are.
 */
export function dropVolatileParameters(url: URL, names: readonly string[]): void {
  if (url.search === "") return;
  const present = new Set([...url.searchParams.keys()].map((name) => name.toLowerCase()));
  const schemes = SCHEMES.filter(({ markers }) => markers.every((marker) => present.has(marker)));
  const isVolatile = (name: string): boolean => {
    if (names.includes(name)) return true;
    const lower = name.toLowerCase();
    return schemes.some(({ parameters, prefix }) => parameters.includes(lower) || (prefix !== undefined && lower.startsWith(prefix)));
  };
  const kept = url.search.slice(1).split("&").filter((pair) => !isVolatile(nameOf(pair)));
  url.search = kept.join("&");
}

function nameOf(pair: string): string {
  return [...new URLSearchParams(pair).keys()][0] ?? "";
}
