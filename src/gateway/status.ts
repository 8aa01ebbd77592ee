import { freemem } from 'node:os';
import type { Admission, Refusals } from '../base/admission.ts';
import { type BackgroundFailure, failuresOf } from '../base/background.ts';
import { asPosternError } from '../base/errors.ts';
import type { EventCounter } from '../base/events.ts';
import type { LiveConfig } from '../base/live-config.ts';
import type { Recovery } from '../base/recover-state.ts';
import { countSetAside } from '../base/rows.ts';
import { softwareVersion } from '../base/version.ts';
import { coapDeviceWarning } from './coap-device-service.ts';
import type { GatewayConfig } from './config.ts';
import type { GatewayFirmware } from './firmware.ts';
import { lwm2mWarning } from './lwm2m-service.ts';
import type { ImageSummary } from './modes/image-cache.ts';
import type { CertificateKeeper, CertificateView } from './northbound/certificate-keeper.ts';
import type { BudgetView, DataBudget } from './northbound/data-budget.ts';
import type { Ownership, TransferView } from './northbound/ownership.ts';
import type { Uplink, UplinkDescription } from './northbound/uplink.ts';
import type { GatewayObjects } from './objects.ts';
import type { CoapNetwork } from './southbound/coap-network.ts';
import type { DeviceSessions } from './southbound/device-sessions.ts';
import type { Joins, JoinView } from './southbound/joins.ts';
import { shownRecords } from './southbound/presence.ts';
import type { GatewayState } from './state.ts';
import type { TelemetryService } from './telemetry-service.ts';
import type { Diagnosis } from './update/diagnosis.ts';

/** How a gateway stands, for people and programs that ask it. */
export interface GatewayStatus {
  readonly gateway: string;
  readonly software: string;
  readonly uplink: UplinkDescription & { readonly connected: boolean };
  readonly coap: {
    readonly port: number;
    readonly addresses: readonly string[];
    readonly security: string;
    /** UDP port of CoAP over DTLS; absent where it is not served. */
    readonly securePort?: number;
  };
  /** `unreachable`: how many of the attached ones do not answer. */
  readonly devices: { readonly attached: number; readonly unreachable: number; readonly limit: number };
  readonly outbox: {
    readonly waiting: number;
    readonly limit: number;
    readonly dropped: number;
    /** Alerts of child gateways that found no room in their share. The child keeps them and tries again. */
    readonly refused: number;
    /** Alerts that cannot be delivered and are kept. */
    readonly undeliverable: number;
  };
  /** What was done because the state was damaged or lost at this start; absent when it was whole. */
  readonly recovery?: Recovery;
  /** Why the state cannot be written, or not be read: then the counts that are read from it are 0. Absent while all is well. */
  readonly fault?: string;
  /** Certificate at the broker, where this gateway has it by enrolment. */
  readonly certificate?: CertificateView;
  /** A transfer to another owner that is under way. */
  readonly transfer?: TransferView;
  /** The join window, while it is open. */
  readonly join?: JoinView['window'];
  readonly sessions: number;
  /** What the private network sent beyond the limits of `[admission]` since the start, with the latest of it. Absent for nothing. */
  readonly refused?: Refusals;
  /** Bytes of images, and images by what they are at. `failed` counts those whose last operation failed. */
  readonly images: ImageSummary;
  /** Observations that run and their devices; values that wait for DM servers, and that were dropped since the start. */
  readonly telemetry: TelemetryService['summary'];
  /** What the uplink has carried in this day and month. Absent where the uplink is a parent gateway. */
  readonly budget?: BudgetView;
  /** Of a configuration that was read again: keys that take effect at the next start, and why it was refused. */
  readonly configuration: { readonly restartNeeded: readonly string[]; readonly refused?: string };
  /** Rows of the state file that could not be read, and were set aside. */
  readonly setAside: number;
  /** What became of the gateway and its board before the last start. Absent without slots. */
  readonly diagnosis?: Diagnosis;
  /** Background work that failed since the start. */
  readonly failures: readonly BackgroundFailure[];
  /** Mebibytes: of the process, of objects, and of octets outside the heap. */
  readonly memory: { readonly rss: number; readonly heap: number; readonly outside: number };
  /** How often each event happened since the start. */
  readonly counts: Readonly<Record<string, number>>;
}

export const plainWarning =
  'none: plain CoAP; anyone on the private network can read and change what is said';

const httpWarning = 'HTTP without TLS; anyone on the way can read and change what is said';

const secureWords = '; over plain CoAP only discovery and the tunnel';

export interface StatusParts {
  readonly config: GatewayConfig;
  readonly state: GatewayState;
  readonly admission: Admission;
  readonly network: CoapNetwork;
  readonly secureNetwork: CoapNetwork | undefined;
  readonly uplink: Uplink;
  readonly certificate: CertificateKeeper | undefined;
  readonly ownership: Ownership | undefined;
  readonly budget: DataBudget;
  readonly sessions: DeviceSessions;
  readonly objects: GatewayObjects;
  readonly telemetry: TelemetryService;
  readonly joins: Joins;
  readonly events: EventCounter;
  readonly firmware: Pick<GatewayFirmware, 'diagnosis'> | undefined;
  readonly configuration: Pick<LiveConfig<GatewayConfig>, 'restartNeeded' | 'refused'>;
}

export function statusOf(parts: StatusParts): GatewayStatus {
  const {
    config,
    state,
    admission,
    network,
    secureNetwork,
    uplink,
    certificate,
    ownership,
    budget,
    sessions,
    objects,
    telemetry,
    joins,
    events,
    firmware,
    configuration,
  } = parts;
  const { restartNeeded, refused } = configuration;
  const { coap, gateway, http, limits, lwm2m, oscore } = config;
  const { inventory, outbox } = state;
  let { message: fault } = state.database.fault ?? {};
  const counted = (count: () => number): number => {
    try {
      return count();
    } catch (thrown) {
      fault ??= `the state cannot be read: ${asPosternError(thrown).message}`;
      return 0;
    }
  };
  const waiting = counted(() => outbox.size);
  const undeliverable = counted(() => outbox.undeliverable);
  const setAside = counted(() => countSetAside(state.database));
  return {
    gateway: gateway.id,
    software: softwareVersion,
    uplink: { connected: uplink.connected, ...uplink.description },
    coap: {
      port: network.port,
      addresses: network.addresses.map(({ address }) => address),
      security: [
        coap['insecure-plain-coap'] ? plainWarning : `DTLS${oscore ? ' and OSCORE' : ''}${secureWords}`,
        ...(lwm2m?.['insecure-no-security'] ? [lwm2mWarning] : []),
        ...(config['coap-devices'] ? [coapDeviceWarning] : []),
        ...(http?.['insecure-plain-http'] && http['tls-cert'] === undefined ? [httpWarning] : []),
      ].join('; '),
      ...(secureNetwork && { securePort: secureNetwork.port }),
    },
    devices: {
      attached: inventory.size,
      unreachable: [...shownRecords(inventory).values()].filter(({ state }) => state === 'unreachable')
        .length,
      limit: limits.devices,
    },
    outbox: {
      waiting,
      limit: outbox.limit,
      dropped: outbox.dropped,
      refused: outbox.refused,
      undeliverable,
    },
    ...(state.database.file?.recovery && { recovery: state.database.file.recovery }),
    ...(fault !== undefined && { fault }),
    ...(certificate && { certificate: certificate.view() }),
    ...(ownership?.transfer && { transfer: ownership.transfer }),
    ...(joins.view.window && { join: joins.view.window }),
    sessions: sessions.size,
    ...(admission.refusals && { refused: admission.refusals }),
    images: objects.images.summary,
    telemetry: telemetry.summary,
    ...(config.mqtt && { budget: budget.view() }),
    configuration: { restartNeeded, ...(refused !== undefined && { refused }) },
    setAside,
    ...(firmware && { diagnosis: firmware.diagnosis }),
    failures: failuresOf(events),
    memory: memoryInUse(),
    counts: Object.fromEntries([...events.counts].toSorted()),
  };
}

/** Mebibytes that the machine could give to programs. */
export const freeMemory = (): number => Math.round(freemem() / 1_048_576);

export function memoryInUse(): GatewayStatus['memory'] {
  const { rss, heapUsed, external } = process.memoryUsage();
  const mebibytes = (bytes: number) => Math.round(bytes / 104_857.6) / 10;
  return { rss: mebibytes(rss), heap: mebibytes(heapUsed), outside: mebibytes(external) };
}
