import { BoundedMap } from '../../base/bounded-map.ts';
import type { Clock } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';
import { asPosternError, PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import { freshSecrets } from '../../dm/fresh-secrets.ts';
import { ProofGuard } from '../../dm/proof-guard.ts';
import { accountNodes, type DmAccount } from '../../mo/dm-acc.ts';
import { Code } from '../../wire/coap/codes.ts';
import { ContentFormat, dmContentFormats, mediaTypeOf } from '../../wire/coap/content-formats.ts';
import type { EchoGuard } from '../../wire/coap/echo.ts';
import { type CoapRequest, type Remote, type Reply, refusal, reply } from '../../wire/coap/message.ts';
import { Option, opaque, text } from '../../wire/coap/options.ts';
import type { Resource } from '../../wire/coap/router.ts';
import { coapUri } from '../../wire/coap/uri.ts';
import { deviceIdRule, isDeviceId, paths, resourceTypes } from '../../wire/resources.ts';
import { secretBytes } from '../../wire/secure/transport-keys.ts';
import { decodeProof, isProof } from '../../wire/syncml/bootstrap-proof.ts';
import { type BootstrapSecrets, protectBootstrap } from '../../wire/syncml/bootstrap-security.ts';
import { encodeMessage, isSupported, MediaType } from '../../wire/syncml/codec.ts';
import type { SyncmlMessage } from '../../wire/syncml/message.ts';
import { encodeTnds, encodeTndsWbxml, TndsMediaType } from '../../wire/syncml/tnds.ts';
import type { Credentials, GatewayCredential } from '../store/credentials.ts';
import { type AccountSecurity, freshIdentity, securityOf } from './account-security.ts';
import type { LocalEndpoint } from './coap-network.ts';

export interface BootstrapServerParts {
  /** ServerID of the gateway in the accounts that it issues. */
  readonly gatewayId: string;
  /**
   * Factory secret (`network`) and optional PIN of a device; undefined when the device may not be bootstrapped here.
   */
  readonly secretsOf: (deviceId: string) => BootstrapSecrets | undefined;
  /** Whether the account of a device is for OSCORE, also when the device is bootstrapped over DTLS. */
  readonly isForOscore: (deviceId: string) => boolean;
  /** URI of a path over CoAP that OSCORE protects, at the address of a socket. */
  readonly oscoreUri: (local: LocalEndpoint, path: string) => string;
  readonly credentials: Credentials;
  readonly guard: EchoGuard;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
  /** Whether an attached device with this ID answers at an address other than `remote`. */
  readonly livesElsewhere: (deviceId: string, remote: Remote) => Promise<boolean>;
  /**
   * Whether the sender of a request is a device of this name that has joined by its public key, or joins now. Runs `store` in the
   * same transaction.
   * @throws {PosternError} `forbidden`, `full`, `storage`
   */
  readonly isJoined: (deviceId: string, remote: Remote, store: () => void) => boolean;
}

/** Request of a device to be bootstrapped, independent of the transport. */
export interface BootstrapRequest {
  readonly deviceId: string | undefined;
  readonly remote: Remote;
  /** Media type of the answer. */
  readonly mediaType: string;
  /** The challenge that the device answers; absent when it asks for a challenge. */
  readonly challenge?: Uint8Array | undefined;
  /** CBOR of the proof (docs/bindings.md); absent when the device asks for a challenge. */
  readonly proof?: Uint8Array | undefined;
  /** URI at which the device reaches the gateway; it goes into the account. */
  readonly address: string;
  /** What the account has a key for. Absent where request and answer are not encrypted. */
  readonly security?: AccountSecurity | undefined;
  /** Called when the proof is right. */
  readonly proved?: (deviceId: string) => void;
}

export type BootstrapAnswer =
  | { readonly kind: 'challenge'; readonly reason: string }
  /**
   * `security` is `SEC=…; MAC=…`, the content type parameters of DM Bootstrap. Absent for a device that joined: the gateway shares
   * no secret with it, and the association in which the device has proved its key protects the answer.
   */
  | { readonly kind: 'bootstrap'; readonly body: Uint8Array; readonly security?: string };

/**
 * Used challenges that are remembered. A challenge expires before this many others can be used, since wrong proofs have a
 * rate (`ProofGuard`).
 */
const usedChallenges = 4096;

/**
 * The local bootstrap server (GwMO section 8.4.2). A device that proves its factory secret gets an account for this
 * gateway with fresh secrets. The challenge is an Echo value (RFC 9175) that can be used once. The server keeps no
 * state for a device that only asks for a challenge.
 */
export class BootstrapServer {
  readonly #parts: BootstrapServerParts;
  readonly #used = new BoundedMap<string, true>(usedChallenges);
  readonly #guard: ProofGuard;
  /** Secret in place of that of a device that is not known, so that the work does not tell which devices are known. */
  readonly #noSecret: string;

  constructor(parts: BootstrapServerParts) {
    this.#parts = parts;
    this.#guard = new ProofGuard(parts.clock);
    this.#noSecret = Buffer.from(parts.entropy.bytes(secretBytes)).toString('base64url');
  }

  /** CoAP resource `/dm/bs`. */
  resource(local: LocalEndpoint): Resource {
    const attributes = { rt: resourceTypes.bootstrap, ct: dmContentFormats };
    return {
      path: paths.bootstrap,
      links: () => [{ target: paths.bootstrap, attributes }],
      // A device that takes it proves itself at once, without asking for a challenge first.
      offer: ({ remote }) => opaque(Option.Echo, this.#parts.guard.issue(remote)),
      methods: { POST: (request) => this.#overCoap(request, local) },
    };
  }

  async #overCoap(request: CoapRequest, local: LocalEndpoint): Promise<Reply> {
    const { remote, echo, payload } = request;
    const contentFormat = request.accept ?? ContentFormat.SyncmlWbxml;
    const mediaType = mediaTypeOf(contentFormat);
    if (mediaType === undefined || !isSupported(mediaType))
      return refusal(Code.NotAcceptable, `content formats of the bootstrap: ${dmContentFormats}`);
    const deviceId = request.parameter('id');
    const security = securityOf(local, remote, this.#parts.isForOscore(deviceId ?? ''));
    const answer = await this.answer({
      deviceId,
      remote,
      mediaType,
      challenge: echo,
      proof: payload.length === 0 ? undefined : payload,
      address:
        security === 'oscore'
          ? this.#parts.oscoreUri(local, paths.sessions)
          : coapUri(local.address, local.port, paths.sessions, local.scheme),
      security,
      proved: (proven) => local.endpoint().vouch(remote, proven),
    });
    if (answer.kind === 'challenge') return this.#parts.guard.challenge(request, answer.reason);
    return reply(Code.Changed, {
      payload: answer.body,
      contentFormat,
      ...(answer.security !== undefined && { options: [text(Option.BootstrapMac, answer.security)] }),
    });
  }

  /**
   * Returns a challenge, or, when the request answers a fresh challenge with the right proof, the bootstrap. A challenge is
   * good for one proof, right or wrong.
   * @throws {PosternError} `malformed` without a device ID or with a proof that cannot be decoded, `forbidden` for an
   * unknown device or a wrong proof, `lockedOut` after too many wrong proofs, `conflict` while a device with this ID answers at another address, `full`
   */
  async answer(request: BootstrapRequest): Promise<BootstrapAnswer> {
    try {
      return await this.#answer(request);
    } catch (thrown) {
      const { code, message: reason } = asPosternError(thrown);
      const { deviceId = '', remote } = request;
      if (code === 'malformed' || code === 'full')
        this.#parts.events.emit('bootstrap.refused', { device: deviceId, peer: remote.address, reason });
      throw thrown;
    }
  }

  async #answer(request: BootstrapRequest): Promise<BootstrapAnswer> {
    const { guard, secretsOf, events } = this.#parts;
    const { deviceId, remote, challenge: echo, proof: coded, proved } = request;
    if (!isDeviceId(deviceId)) throw new PosternError('malformed', `?id=<DevId>: expected ${deviceIdRule}`);
    if (remote.credential === 'joining') return this.#toJoined(deviceId, request);
    if (remote.identity !== undefined && remote.identity !== deviceId) {
      const reason = `the key of this association is that of ${remote.identity}`;
      events.emit('bootstrap.refused', { device: deviceId, peer: remote.address, reason });
      throw new PosternError('forbidden', 'no bootstrap for this device and proof');
    }
    if (remote.credential === 'pinned') {
      await this.#demandHere(deviceId, remote);
      return this.#toJoined(deviceId, request);
    }
    if (!echo || !coded) return { kind: 'challenge', reason: 'prove your factory credential' };
    const challenge = Buffer.from(echo).toString('hex');
    if (!guard.isFresh(echo, remote) || this.#used.has(challenge)) {
      events.emit('bootstrap.stale-challenge', { device: deviceId, peer: remote.address });
      return { kind: 'challenge', reason: 'this challenge was used already or is too old' };
    }
    // The challenge came to this address, so nobody fails in the name of another address.
    const lock = this.#guard.lockOf(deviceId, remote);
    if (lock) {
      events.emit('bootstrap.refused', { device: deviceId, peer: remote.address, reason: lock.message });
      throw lock;
    }
    const proof = decodeProof(coded);
    this.#used.set(challenge, true);
    const secrets = secretsOf(deviceId);
    // An unknown device and a wrong proof get the same answer, so that nobody can find out which devices are known.
    if (!isProof(proof, secrets?.network ?? this.#noSecret, echo, deviceId) || !secrets) {
      const reason = secrets === undefined ? 'unknown device' : 'wrong proof';
      this.#guard.failed(deviceId, remote);
      events.emit('bootstrap.refused', { device: deviceId, peer: remote.address, reason });
      throw new PosternError('forbidden', 'no bootstrap for this device and proof');
    }
    this.#guard.succeeded(deviceId, remote);
    proved?.(deviceId);
    await this.#demandHere(deviceId, remote);
    // The configuration may have been read again meanwhile.
    if (secretsOf(deviceId)?.network !== secrets.network)
      throw new PosternError('forbidden', 'no bootstrap for this device and proof');
    const nonce = Buffer.from(proof.deviceNonce).toString('hex');
    const body = this.#bodyFor(this.#issue(deviceId, 'local', request, nonce), request);
    return { kind: 'bootstrap', body, security: protectBootstrap(body, secrets) };
  }

  /** @throws {PosternError} `conflict` */
  async #demandHere(deviceId: string, remote: Remote): Promise<void> {
    if (!(await this.#parts.livesElsewhere(deviceId, remote))) return;
    this.#parts.events.emit('bootstrap.duplicate-id', { device: deviceId, peer: remote.address });
    throw new PosternError('conflict', 'a device with this ID is attached and answers elsewhere');
  }

  /** The bootstrap of a device that has proved its public key. Key and account are stored together. */
  #toJoined(deviceId: string, request: BootstrapRequest): BootstrapAnswer {
    let account: DmAccount | undefined;
    const store = () => {
      account = this.#issue(deviceId, 'joined', request);
    };
    if (!this.#parts.isJoined(deviceId, request.remote, store) || !account)
      throw new PosternError('forbidden', 'no bootstrap for this device and key');
    request.proved?.(deviceId);
    return { kind: 'bootstrap', body: this.#bodyFor(account, request) };
  }

  #bodyFor(account: DmAccount, { mediaType, remote }: BootstrapRequest): Uint8Array {
    const deviceId = account.own.name;
    const body = encodeMessage(bootstrapMessage(deviceId, account, mediaType), mediaType);
    this.#parts.events.emit('bootstrap.issued', { device: deviceId, peer: remote.address });
    return body;
  }

  #issue(
    deviceId: string,
    origin: 'local' | 'joined',
    { address, security }: Pick<BootstrapRequest, 'address' | 'security'>,
    bootstrapNonce?: string,
  ): DmAccount {
    const { gatewayId, entropy, credentials } = this.#parts;
    const transport = security && {
      identity: freshIdentity(security, entropy),
      key: Buffer.from(entropy.bytes(secretBytes)).toString('base64url'),
    };
    const credential: GatewayCredential = {
      deviceId,
      clientName: deviceId,
      ...freshSecrets(entropy),
      origin,
      attached: false,
      ...(transport && { transport }),
    };
    credentials.issue(credential);
    return {
      serverId: gatewayId,
      name: 'DM Gateway',
      address,
      own: { name: deviceId, secret: credential.clientSecret, nonce: credential.clientNonce },
      peer: { name: gatewayId, secret: credential.serverSecret, nonce: credential.serverNonce },
      ...(bootstrapNonce !== undefined && { bootstrapNonce }),
      ...(transport && { transport }),
    };
  }
}

/**
 * A bootstrap is a DM message with one command, and the device sends no answer (OMA DM bootstrap 1.2.1, section 5.4).
 */
function bootstrapMessage(deviceId: string, account: DmAccount, mediaType: string): SyncmlMessage {
  const object = {
    path: './Inbox',
    root: accountNodes(account.serverId.replaceAll('/', '_'), account),
  };
  const isPacked = mediaType === MediaType.Wbxml;
  return {
    header: {
      verDtd: '1.2',
      verProto: 'DM/1.2',
      sessionId: '0',
      msgId: 0,
      target: { locUri: deviceId },
      source: { locUri: account.serverId },
    },
    commands: [
      {
        name: 'Add',
        cmdId: '1',
        items: [
          {
            target: { locUri: './Inbox' },
            meta: { format: 'xml', type: isPacked ? TndsMediaType.Wbxml : TndsMediaType.Xml },
            data: isPacked ? encodeTndsWbxml(object) : encodeTnds(object),
          },
        ],
      },
    ],
    final: true,
  };
}
