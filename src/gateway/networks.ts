import { Admission } from '../base/admission.ts';
import { guarded } from '../base/background.ts';
import type { Clock } from '../base/clock.ts';
import type { Entropy } from '../base/entropy.ts';
import type { Events } from '../base/events.ts';
import { coapsPort, coapUri } from '../wire/coap/uri.ts';
import { CoapTransport } from '../wire/secure/coap-transport.ts';
import { StoredSenders } from '../wire/secure/oscore/stored-senders.ts';
import type { GatewayConfig } from './config.ts';
import type { LiveSettings } from './live-settings.ts';
import { admissionLimits, advertised } from './settings.ts';
import { CoapNetwork } from './southbound/coap-network.ts';
import { DeviceContexts } from './southbound/device-contexts.ts';
import type { ListInterfaces } from './southbound/interfaces.ts';
import type { Joins } from './southbound/joins.ts';
import { PreSharedKeys } from './southbound/pre-shared-keys.ts';
import type { GatewayState } from './state.ts';
import { DtlsAssociations } from './store/dtls-associations.ts';

export interface NetworkSurroundings {
  readonly config: GatewayConfig;
  readonly live: LiveSettings;
  readonly state: GatewayState;
  readonly joins: Joins;
  /** Number of peers that are remembered, attached or not. */
  readonly remembered: number;
  readonly listInterfaces: ListInterfaces | undefined;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
}

/**
 * Makes the private network of a gateway: plain CoAP, with OSCORE where the configuration has `[oscore]`, CoAP over DTLS where it has
 * `[coaps]`, and the admission that both share. No socket is open yet.
 */
export function networksOf({
  config,
  live,
  state,
  joins,
  remembered,
  listInterfaces,
  ...machine
}: NetworkSurroundings) {
  const { coap, coaps, oscore } = config;
  const admission = new Admission({
    ...machine,
    limits: admissionLimits(config.admission),
    known: remembered,
  });
  const shared = { ...machine, admission, ...(listInterfaces && { listInterfaces }) };
  const plainly = advertised(coap.advertise);
  const contexts =
    oscore &&
    new DeviceContexts({
      ...machine,
      configured: live.current.deviceContexts,
      keys: state.credentials.keys,
      senders: new StoredSenders(state.database, machine.clock, state.epoch.isNew),
    });
  const network = new CoapNetwork({
    ...coap,
    ...shared,
    advertise: plainly,
    limits: { leisure: coap.leisure },
    protection: contexts?.protection,
  });
  const { associations = remembered } = config.limits;
  const transport = coaps && secureTransport({ live, state, joins, associations, admission, ...machine });
  const secureNetwork =
    coaps &&
    transport &&
    new CoapNetwork({
      ...shared,
      port: coaps.port,
      interfaces: coap.interfaces,
      multicast: false,
      advertise: advertised(coaps.advertise),
      transport,
    });
  /** The network that reaches a device: that over DTLS where there is an association with it. */
  const networkAt = (address: string, port: number): CoapNetwork =>
    (transport?.reaches(address, port) && secureNetwork) || network;
  const told = advertised(coaps?.advertise);
  /** URI of a path over DTLS, at the address of a socket. */
  const secureUri = ({ address }: { readonly address: string }, path: string): string =>
    coapUri(told?.address ?? address, told?.port ?? secureNetwork?.port ?? coapsPort, path, 'coaps');
  /** URI of a path over CoAP that OSCORE protects, at the address of a socket. */
  const oscoreUri = ({ address }: { readonly address: string }, path: string): string =>
    coapUri(plainly?.address ?? address, plainly?.port ?? network.port, path);
  return { admission, network, transport, secureNetwork, contexts, networkAt, secureUri, oscoreUri };
}

/** DTLS with the keys of the configuration that holds now, and associations that survive a restart. */
function secureTransport({
  live,
  state,
  joins,
  associations,
  admission,
  ...machine
}: Omit<NetworkSurroundings, 'listInterfaces' | 'config' | 'remembered'> & {
  readonly admission: Admission;
  readonly associations: number;
}): CoapTransport {
  const keys = new PreSharedKeys({
    configured: () => live.current.deviceKeys,
    factory: () => live.current.factorySecrets,
    issued: state.credentials.keys,
  });
  const certificates = () => {
    const { own, trust } = live.current.certificates ?? {};
    return own && trust && { own, trust: { ...trust, unlisted: joins } };
  };
  const transport = new CoapTransport({
    keyOf: (identity) => keys.keyOf(identity),
    ownerOf: (identity, proof) => joins.ownerOf(identity, proof) ?? keys.ownerOf(identity, proof),
    opened: guarded(machine.events, 'state', (identity: string) => state.credentials.keys.used(identity)),
    certificates,
    admission,
    associations,
    store: new DtlsAssociations(state.database, {
      sealing: state.sealing,
      clock: machine.clock,
      isNew: state.epoch.isNew,
      lost: (count) =>
        machine.events.emit('state.key-unusable', {
          file: state.key,
          reason: `${count} associations were sealed by another key`,
        }),
    }),
    ...machine,
  });
  joins.listen(transport);
  return transport;
}
