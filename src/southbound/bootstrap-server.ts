import { BoundedMap } from '../base/bounded-map.ts';
import type { Entropy } from '../base/entropy.ts';
import type { Events } from '../base/events.ts';
import { Code } from '../coap/codes.ts';
import { ContentFormat, mediaTypeOf } from '../coap/content-formats.ts';
import type { EchoGuard } from '../coap/echo.ts';
import { type CoapRequest, type Reply, refusal, reply } from '../coap/message.ts';
import { Option, text } from '../coap/options.ts';
import type { Resource } from '../coap/router.ts';
import { coapUri } from '../coap/uri.ts';
import { accountNodes, type DmAccount } from '../mo/dm-acc.ts';
import type { Credentials, GatewayCredential } from '../store/credentials.ts';
import { decodeProof, formatBootstrapMac, isProof } from '../syncml/bootstrap-proof.ts';
import { encodeMessage } from '../syncml/codec.ts';
import { bootstrapMac } from '../syncml/digest.ts';
import type { SyncmlMessage } from '../syncml/message.ts';
import { encodeTnds, TndsMediaType } from '../syncml/tnds.ts';
import type { LocalEndpoint } from './coap-network.ts';
import { isDeviceId, paths, resourceTypes } from './resources.ts';

export interface BootstrapServerParts {
  /** ServerID of the gateway, as its accounts name it. */
  readonly gatewayId: string;
  /** The secret that a device left its factory with, where it may be bootstrapped here. */
  readonly factorySecret: (deviceId: string) => string | undefined;
  readonly credentials: Credentials;
  readonly guard: EchoGuard;
  readonly entropy: Entropy;
  readonly events: Events;
  /** Whether a device of this ID answers at another address than this. */
  readonly livesElsewhere: (deviceId: string, request: CoapRequest) => Promise<boolean>;
}

/** Challenges that were answered and are no good any more; each is stale by itself before this many can come. */
const usedChallenges = 4096;
const secretBytes = 16;
const nonceBytes = 16;

/**
 * The local bootstrap server (GwMO section 8.4.2): gives a device that proves its factory credential an account for this
 * gateway, with secrets made for it alone. The challenge is an Echo (RFC 9175) that is good once; nothing is kept for a
 * device that only asks.
 */
export class BootstrapServer {
  readonly #parts: BootstrapServerParts;
  readonly #used = new BoundedMap<string, true>(usedChallenges);

  constructor(parts: BootstrapServerParts) {
    this.#parts = parts;
  }

  resource(local: LocalEndpoint): Resource {
    const attributes = {
      rt: resourceTypes.bootstrap,
      ct: `${ContentFormat.SyncmlXml} ${ContentFormat.SyncmlCbor}`,
    };
    return {
      path: paths.bootstrap,
      links: () => [{ target: paths.bootstrap, attributes }],
      methods: { POST: (request) => this.#bootstrap(request, local) },
    };
  }

  async #bootstrap(request: CoapRequest, local: LocalEndpoint): Promise<Reply> {
    const { guard, factorySecret, events, livesElsewhere } = this.#parts;
    const deviceId = request.parameter('id');
    if (!isDeviceId(deviceId)) return refusal(Code.BadRequest, 'say who you are: ?id=<DevId>');
    const mediaType = mediaTypeOf(request.accept ?? ContentFormat.SyncmlXml);
    if (mediaType === undefined || request.accept === ContentFormat.SyncmlWbxml)
      return refusal(Code.NotAcceptable, 'the bootstrap comes as 65001 or 65003');
    const { echo } = request;
    if (!echo || request.payload.length === 0)
      return guard.challenge(request, 'prove your factory credential');
    const challenge = Buffer.from(echo).toString('hex');
    if (!guard.isFresh(echo, request.remote) || this.#used.has(challenge)) {
      events.emit('warn', 'bootstrap.stale-challenge', { device: deviceId, peer: request.remote.address });
      return guard.challenge(request, 'this challenge is used or too old');
    }
    const proof = decodeProof(request.payload);
    const secret = factorySecret(deviceId);
    // One answer for both: nobody learns which devices are known.
    if (secret === undefined || !isProof(proof, secret, echo, deviceId)) {
      const reason = secret === undefined ? 'unknown device' : 'wrong proof';
      events.emit('warn', 'bootstrap.refused', { device: deviceId, peer: request.remote.address, reason });
      return refusal(Code.Forbidden, 'no bootstrap for this device and proof');
    }
    this.#used.set(challenge, true);
    local.endpoint().vouch(request.remote);
    if (await livesElsewhere(deviceId, request)) {
      events.emit('warn', 'bootstrap.duplicate-id', { device: deviceId, peer: request.remote.address });
      return refusal(Code.Conflict, 'a device with this ID is attached and answers elsewhere');
    }
    const account = this.#issue(deviceId, Buffer.from(proof.deviceNonce).toString('hex'), local);
    const body = encodeMessage(bootstrapMessage(deviceId, account), mediaType);
    events.emit('info', 'bootstrap.issued', { device: deviceId, peer: request.remote.address });
    return reply(Code.Changed, {
      payload: body,
      contentFormat: request.accept ?? ContentFormat.SyncmlXml,
      options: [text(Option.BootstrapMac, formatBootstrapMac(bootstrapMac(secret, body)))],
    });
  }

  #issue(deviceId: string, bootstrapNonce: string, { address, port }: LocalEndpoint): DmAccount {
    const { gatewayId, entropy, credentials } = this.#parts;
    const secret = () => Buffer.from(entropy.bytes(secretBytes)).toString('base64url');
    const credential: GatewayCredential = {
      deviceId,
      clientName: deviceId,
      clientSecret: secret(),
      clientNonce: entropy.bytes(nonceBytes),
      serverSecret: secret(),
      serverNonce: entropy.bytes(nonceBytes),
      origin: 'local',
      attached: false,
    };
    credentials.put(credential);
    return {
      serverId: gatewayId,
      name: 'DM Gateway',
      address: coapUri(address, port, paths.sessions),
      own: { name: deviceId, secret: credential.clientSecret, nonce: credential.clientNonce },
      peer: { name: gatewayId, secret: credential.serverSecret, nonce: credential.serverNonce },
      bootstrapNonce,
    };
  }
}

/** A bootstrap is a DM message of one command that gets no answer (OMA DM bootstrap 1.2.1, section 5.4). */
function bootstrapMessage(deviceId: string, account: DmAccount): SyncmlMessage {
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
            meta: { format: 'xml', type: TndsMediaType.Xml },
            data: encodeTnds({
              path: './Inbox',
              root: accountNodes(account.serverId.replaceAll('/', '_'), account),
            }),
          },
        ],
      },
    ],
    final: true,
  };
}
