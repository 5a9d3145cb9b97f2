/** X.509 certificates of an authority and of the hosts it speaks for, as bytes. Profile: RFC 5280; ECDSA with SHA-256. */
import { createHash, randomBytes, sign, type KeyObject } from "node:crypto";
import { isIP } from "node:net";
import { AsnConvert, OctetString } from "@peculiar/asn1-schema";
import * as asn1 from "@peculiar/asn1-x509";

/** The first and the last moment at which a certificate holds, Unix ms. */
export interface Lifetime {
  readonly fromMs: number;
  readonly untilMs: number;
}

/** Who signs. */
export interface Issuer {
  readonly name: asn1.Name;
  readonly keyIdentifier: ArrayBuffer;
  /** P-256. */
  readonly privateKey: KeyObject;
}

/**
 * The authority that has this certificate and this key.
 *
 * @param der of the certificate
 */
export function issuerOf(der: Buffer, privateKey: KeyObject): Issuer {
  const { subject, extensions = [], subjectPublicKeyInfo } = AsnConvert.parse(der, asn1.Certificate).tbsCertificate;
  const said = extensions.find(({ extnID }) => extnID === asn1.id_ce_subjectKeyIdentifier)?.extnValue;
  const own = said === undefined ? undefined : AsnConvert.parse(said, asn1.SubjectKeyIdentifier).buffer;
  return { name: subject, keyIdentifier: own ?? keyIdentifier(Buffer.from(AsnConvert.serialize(subjectPublicKeyInfo))), privateKey };
}

/** @returns the certificate of an authority, signed by itself, PEM */
export function authorityCertificate(commonName: string, keys: { readonly privateKey: KeyObject; readonly publicKey: KeyObject }, lifetime: Lifetime): string {
  const { KeyUsageFlags } = asn1;
  const issuer = { name: named(commonName), keyIdentifier: keyIdentifier(spki(keys.publicKey)), privateKey: keys.privateKey };
  return certificate(issuer, { name: issuer.name, publicKey: keys.publicKey, lifetime }, [
    extension(asn1.id_ce_basicConstraints, new asn1.BasicConstraints({ cA: true, pathLenConstraint: 0 }), true),
    extension(asn1.id_ce_keyUsage, new asn1.KeyUsage(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign), true),
  ]);
}

/** @returns a server's certificate for `host`, a name or an address without brackets, PEM */
export function hostCertificate(issuer: Issuer, host: string, publicKey: KeyObject, lifetime: Lifetime): string {
  return endCertificate(issuer, [host], [asn1.id_kp_serverAuth], publicKey, lifetime);
}

/**
 * @param names all that it is reached by, names or addresses without brackets; the first is its common name
 * @returns a certificate for one that listens and dials, PEM
 */
export function memberCertificate(issuer: Issuer, names: readonly [string, ...string[]], publicKey: KeyObject, lifetime: Lifetime): string {
  return endCertificate(issuer, names, [asn1.id_kp_serverAuth, asn1.id_kp_clientAuth], publicKey, lifetime);
}

function endCertificate(
  issuer: Issuer,
  names: readonly [string, ...string[]],
  usages: string[],
  publicKey: KeyObject,
  lifetime: Lifetime,
): string {
  const sans = names.map((name) => new asn1.GeneralName(isIP(name) === 0 ? { dNSName: name } : { iPAddress: name }));
  return certificate(issuer, { name: named(names[0].slice(0, COMMON_NAME_CHARS_MAX)), publicKey, lifetime }, [
    extension(asn1.id_ce_basicConstraints, new asn1.BasicConstraints({ cA: false }), true),
    extension(asn1.id_ce_keyUsage, new asn1.KeyUsage(asn1.KeyUsageFlags.digitalSignature), true),
    extension(asn1.id_ce_extKeyUsage, new asn1.ExtendedKeyUsage(usages)),
    extension(asn1.id_ce_subjectAltName, new asn1.SubjectAlternativeName(sans)),
  ]);
}

function certificate(
  issuer: Issuer,
  subject: { readonly name: asn1.Name; readonly publicKey: KeyObject; readonly lifetime: Lifetime },
  extensions: readonly asn1.Extension[],
): string {
  const signature = new asn1.AlgorithmIdentifier({ algorithm: ECDSA_WITH_SHA256 });
  const authorityKey = new asn1.AuthorityKeyIdentifier({ keyIdentifier: new asn1.KeyIdentifier(issuer.keyIdentifier) });
  const tbsCertificate = new asn1.TBSCertificate({
    version: asn1.Version.v3,
    serialNumber: serialNumber(),
    signature,
    issuer: issuer.name,
    subject: subject.name,
    validity: new asn1.Validity({ notBefore: new Date(subject.lifetime.fromMs), notAfter: new Date(subject.lifetime.untilMs) }),
    subjectPublicKeyInfo: AsnConvert.parse(spki(subject.publicKey), asn1.SubjectPublicKeyInfo),
    extensions: new asn1.Extensions([
      ...extensions,
      extension(asn1.id_ce_subjectKeyIdentifier, new asn1.SubjectKeyIdentifier(keyIdentifier(spki(subject.publicKey)))),
      extension(asn1.id_ce_authorityKeyIdentifier, authorityKey),
    ]),
  });
  const signatureValue = bytesOf(sign("sha256", Buffer.from(AsnConvert.serialize(tbsCertificate)), issuer.privateKey));
  const whole = new asn1.Certificate({ tbsCertificate, signatureAlgorithm: signature, signatureValue });
  return pem(Buffer.from(AsnConvert.serialize(whole)));
}

function extension(extnID: string, value: object, critical = false): asn1.Extension {
  return new asn1.Extension({ extnID, critical, extnValue: new OctetString(AsnConvert.serialize(value)) });
}

function named(text: string): asn1.Name {
  const value = new asn1.AttributeValue({ utf8String: text });
  return new asn1.Name([new asn1.RelativeDistinguishedName([new asn1.AttributeTypeAndValue({ type: COMMON_NAME, value })])]);
}

/** RFC 7093 §2, method 1, over the whole key information: only its being unique and stable matters. */
function keyIdentifier(keyInfo: Buffer): ArrayBuffer {
  return bytesOf(createHash("sha256").update(keyInfo).digest().subarray(0, 20));
}

/** Positive, and of 127 random bits. */
function serialNumber(): ArrayBuffer {
  const bytes = randomBytes(16);
  bytes[0] = (bytes[0]! & 0x7f) | 0x40;
  return bytesOf(bytes);
}

function spki(publicKey: KeyObject): Buffer {
  return publicKey.export({ type: "spki", format: "der" });
}

function bytesOf(buffer: Buffer): ArrayBuffer {
  return Uint8Array.from(buffer).buffer;
}

function pem(der: Buffer): string {
  const lines = der.toString("base64").match(/.{1,64}/g) ?? [];
  return `-----BEGIN CERTIFICATE-----\n${lines.join("\n")}\n-----END CERTIFICATE-----\n`;
}

const ECDSA_WITH_SHA256 = "1.2.840.10045.4.3.2";
const COMMON_NAME = "2.5.4.3";
/** ub-common-name. The host itself is in the alternative names. */
const COMMON_NAME_CHARS_MAX = 64;
