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

/** Who signs. `name` is the common name of the authority's certificate. */
export interface Issuer {
  readonly name: string;
  /** P-256. */
  readonly privateKey: KeyObject;
  readonly publicKey: KeyObject;
}

/** @returns the authority's certificate, signed by itself, PEM */
export function authorityCertificate(issuer: Issuer, lifetime: Lifetime): string {
  const { KeyUsageFlags } = asn1;
  return certificate(issuer, { name: issuer.name, publicKey: issuer.publicKey, lifetime }, [
    extension(asn1.id_ce_basicConstraints, new asn1.BasicConstraints({ cA: true, pathLenConstraint: 0 }), true),
    extension(asn1.id_ce_keyUsage, new asn1.KeyUsage(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign), true),
  ]);
}

/** @returns a server's certificate for `host`, a name or an address without brackets, PEM */
export function hostCertificate(issuer: Issuer, host: string, publicKey: KeyObject, lifetime: Lifetime): string {
  const san = new asn1.GeneralName(isIP(host) === 0 ? { dNSName: host } : { iPAddress: host });
  return certificate(issuer, { name: host.slice(0, COMMON_NAME_CHARS_MAX), publicKey, lifetime }, [
    extension(asn1.id_ce_basicConstraints, new asn1.BasicConstraints({ cA: false }), true),
    extension(asn1.id_ce_keyUsage, new asn1.KeyUsage(asn1.KeyUsageFlags.digitalSignature), true),
    extension(asn1.id_ce_extKeyUsage, new asn1.ExtendedKeyUsage([asn1.id_kp_serverAuth])),
    extension(asn1.id_ce_subjectAltName, new asn1.SubjectAlternativeName([san])),
  ]);
}

function certificate(
  issuer: Issuer,
  subject: { readonly name: string; readonly publicKey: KeyObject; readonly lifetime: Lifetime },
  extensions: readonly asn1.Extension[],
): string {
  const signature = new asn1.AlgorithmIdentifier({ algorithm: ECDSA_WITH_SHA256 });
  const authorityKey = new asn1.AuthorityKeyIdentifier({ keyIdentifier: new asn1.KeyIdentifier(keyIdentifier(issuer.publicKey)) });
  const tbsCertificate = new asn1.TBSCertificate({
    version: asn1.Version.v3,
    serialNumber: serialNumber(),
    signature,
    issuer: commonName(issuer.name),
    subject: commonName(subject.name),
    validity: new asn1.Validity({ notBefore: new Date(subject.lifetime.fromMs), notAfter: new Date(subject.lifetime.untilMs) }),
    subjectPublicKeyInfo: AsnConvert.parse(spki(subject.publicKey), asn1.SubjectPublicKeyInfo),
    extensions: new asn1.Extensions([
      ...extensions,
      extension(asn1.id_ce_subjectKeyIdentifier, new asn1.SubjectKeyIdentifier(keyIdentifier(subject.publicKey))),
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

function commonName(text: string): asn1.Name {
  const value = new asn1.AttributeValue({ utf8String: text });
  return new asn1.Name([new asn1.RelativeDistinguishedName([new asn1.AttributeTypeAndValue({ type: COMMON_NAME, value })])]);
}

/** RFC 7093 §2, method 1, over the whole key information: only its being unique and stable matters. */
function keyIdentifier(publicKey: KeyObject): ArrayBuffer {
  return bytesOf(createHash("sha256").update(spki(publicKey)).digest().subarray(0, 20));
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
