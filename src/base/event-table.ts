import { debug, error, type FieldsIn, info, type Severity, warn } from './event-fields.ts';

/**
 * All events. Names and severities are an operator's interface, in log lines and in the counts of `postern status`. A name has one
 * meaning and one severity, whoever emits it. `byPeer` marks each event that a peer can cause by what it sends.
 */
export const eventTable = {
  // Adaptation mode: updates of LwM2M clients.
  'adaptation.insecure': warn<'security'>(),
  'adaptation.update-ended': info<'device' | 'result'>(),
  'adaptation.update-failed': warn<'device' | 'reason'>(),
  'adaptation.update-resumed': info<'device'>(),

  // Datagrams and requests from the private network that were not looked at.
  'admission.refused': warn<'peer' | 'refused', never, { limit: string }>(),

  // Alerts: on their way out of the gateway's outbox, and as the DM server takes them.
  'alert.attach-contested': warn<'device' | 'gateway', never, { holder: string }>(),
  'alert.foreign-gateway': warn<'gateway', never, { reporter: string }>(),
  'alert.command-fanout': info<'gateway' | 'name' | 'bytes', 'correlator'>(),
  'alert.delivered': info<'device' | 'alert' | 'sequence' | 'status' | 'server'>(),
  'alert.device-attach': info<'device' | 'gateway' | 'bootstrap', 'manufacturer' | 'model'>(),
  'alert.device-detach': info<'device' | 'gateway' | 'reason'>(),
  'alert.device-presence': info<'device' | 'gateway', 'reason', { state: string }>(),
  'alert.device-trigger': info<'gateway' | 'name' | 'bytes', 'correlator'>(),
  'alert.firmware-update': info.byPeer<'party' | 'operation' | 'result', 'correlator'>(),
  'alert.gateway-fault': warn.byPeer<'gateway' | 'reason', never, { kind: string }>(),
  'alert.image-operation': info<'gateway' | 'name' | 'bytes', 'correlator'>(),
  'alert.location-update': info<'device' | 'gateway' | 'address', 'before'>(),
  'alert.refused': warn<'device' | 'alert' | 'sequence' | 'status' | 'server'>(),
  'alert.set-aside': error<'device' | 'alert' | 'sequence' | 'server' | 'reason'>(),
  'alert.unanswered': warn<'server' | 'session' | 'alerts'>(),

  // The head-end's HTTP API.
  'api.failed': error.byPeer<'message', 'stack'>(),
  'api.insecure': warn<'security'>(),
  'api.listening': info<'url'>(),
  'api.refused': warn.byPeer<'peer' | 'reason'>(),
  'api.token-made': info<never, never, { file: string }>(),

  // Work that nobody waits for.
  'background.failed': error<'reason', 'stack', { work: string; failures: number }>(),

  // How devices get an account for a gateway.
  'bootstrap.assisted': info<'device' | 'gateway' | 'status' | 'instead'>(),
  'bootstrap.assisted-failed': warn.byPeer<'device' | 'gateway' | 'reason', 'status'>(),
  'bootstrap.duplicate-id': warn.byPeer<'device' | 'peer'>(),
  'bootstrap.issued': info.byPeer<'device' | 'peer'>(),
  'bootstrap.refused': warn.byPeer<'device' | 'peer' | 'reason'>(),
  'bootstrap.stale-challenge': warn.byPeer<'device' | 'peer'>(),

  // The data budget of the uplink.
  'budget.restored': info<'traffic'>(),
  'budget.short': warn<'traffic', never, { period: string; used: number; limit: number }>(),

  // The certificate of an enrolled gateway at its broker.
  'certificate.clock-behind': warn<'gateway' | 'reason'>(),
  'certificate.expired': error<'gateway' | 'reason'>(),
  'certificate.expiring': warn<'gateway' | 'reason'>(),
  'certificate.refused': error<'gateway' | 'reason'>(),
  'certificate.renewal-failed': warn<'gateway' | 'reason', never, { expires: string }>(),
  'certificate.renewed': info<'gateway', never, { expires: string }>(),

  // CoAP endpoints, their addresses and sockets.
  'coap.address-gone': info<'address' | 'interface'>(),
  'coap.bad-option': debug.byPeer<'option' | 'peer'>(),
  'coap.bind-failed': warn<'address' | 'port' | 'reason'>(),
  'coap.handler-failed': error.byPeer<'message', 'stack'>(),
  'coap.insecure': warn<'security'>(),
  'coap.join-failed': debug<'group' | 'interface' | 'reason'>(),
  'coap.listening': info<'address' | 'port'>(),
  'coap.malformed': debug.byPeer<'reason' | 'peer'>(),
  'coap.no-interface': warn<'wanted'>(),
  'coap.overload': warn.byPeer<'working'>(),
  'coap.refused': warn.byPeer<'peer' | 'reason', 'identity'>(),
  'coap.socket-error': warn<'address' | 'reason'>(),

  // Associations of DTLS.
  'dtls.clock-unset': warn<never, never, { time: string; least: string }>(),
  'dtls.closed': info.byPeer<'identity' | 'peer' | 'reason', 'device'>(),
  'dtls.full': warn<never, never, { associations: number }>(),
  'dtls.moved': info.byPeer<'identity' | 'peer' | 'before'>(),
  'dtls.opened': info.byPeer<'identity' | 'peer', 'device'>(),
  'dtls.refused': warn.byPeer<'peer' | 'reason', 'identity' | 'device'>(),
  // Observations of LwM2M clients.
  'observation.flood': warn.byPeer<'device'>(),
  'observation.unreadable': warn.byPeer<'device' | 'reason'>(),
  'observation.waiting': info.byPeer<'device' | 'reason'>(),

  'oscore.proven': info.byPeer<'identity' | 'peer'>(),
  'oscore.refused': warn.byPeer<'peer' | 'reason'>(),
  'oscore.unanswered': warn.byPeer<'peer' | 'reason'>(),

  // A configuration that is read again.
  'config.exposed': warn<'reason', never, { file: string }>(),
  'config.refused': warn<'reason'>(),
  'config.reloaded': info<never, never, { keys: string }>(),
  'config.restart-needed': warn<never, never, { keys: string }>(),
  'config.weak-secret': warn<'device' | 'reason'>(),

  // What becomes of a device: at the gateway, at the head-end, and as the reference device tells it.
  'device.account-dropped': warn<'device' | 'server'>(),
  'device.account-taken': info<'device' | 'gateway'>(),
  'device.address-changed': info.byPeer<'device' | 'address'>(),
  'device.association-ended': info<'device' | 'gateway'>(),
  'device.association-opened': info<'device' | 'gateway'>(),
  'device.attach-done': info<'device' | 'gateway'>(),
  'device.attach-failed': warn<'device' | 'reason', 'retryInSeconds', { code: string }>(),
  'device.attached': info.byPeer<'device' | 'bootstrap', 'peer' | 'protocol' | 'via'>(),
  'device.bootstrapped': info<'device' | 'server'>(),
  'device.command': info<'device' | 'server' | 'command' | 'status', 'uri'>(),
  'device.detached': info.byPeer<'device' | 'reason', 'via'>(),
  'device.discovered': info<'device' | 'gateway' | 'resources'>(),
  'device.download-failed': warn<'device' | 'reason'>(),
  'device.downloaded': info<'device' | 'bytes'>(),
  'device.executed': info<'device' | 'path'>(),
  'device.expected': info<'device'>(),
  'device.let-go': info<'device' | 'gateway' | 'status'>(),
  'device.location-changed': info<'device' | 'address', never, { from: string }>(),
  'device.moved': info.byPeer<'device', never, { from: string }>(),
  'device.notification-refused': warn.byPeer<'device' | 'server'>(),
  'device.notified': info.byPeer<'device' | 'server' | 'session'>(),
  'device.reached': info.byPeer<'device', 'via'>(),
  'device.report-failed': warn<'device' | 'reason'>(),
  'device.restarts': info<'device' | 'reason'>(),
  'device.session-ended': info<'device' | 'server' | 'session' | 'status'>(),
  'device.session-failed': warn.byPeer<'device' | 'server' | 'reason'>(),
  'device.session-started': info<'device' | 'server' | 'session' | 'tunnelled'>(),
  'device.unlisted': info<'device'>(),
  'device.unreachable': warn.byPeer<'device' | 'reason', 'via'>(),
  'device.update-failed': warn<'device' | 'result' | 'reason'>(),
  'device.updated': info<'device' | 'version', 'bytes'>(),
  'device.written': info<'device' | 'path'>(),

  // DM sessions of the gateway with its DM servers.
  'dm.command': info<'server' | 'session' | 'command' | 'status', 'uri'>(),
  'dm.session-ended': info<'server' | 'session' | 'status'>(),
  'dm.server-gone': info<'server'>(),
  'dm.session-failed': warn<'server' | 'session' | 'reason'>(),
  'dm.session-started': info<'server' | 'session' | 'alerts' | 'notified'>(),

  // The end of the relation between a gateway and its owner.
  'departure.begun': warn<'gateway' | 'server'>(),
  'departure.left': warn<'gateway'>(),
  'departure.refused': warn.byPeer<'server' | 'reason'>(),
  'departure.stalled': error<'gateway' | 'reason'>(),
  'departure.transfer-failed': error<'gateway' | 'reason'>(),
  'departure.transferred': warn<'gateway' | 'server'>(),

  // Enrolment of a gateway at a head-end.
  'enrolment.approved': info.byPeer<'gateway', never, { key: string; by: string }>(),
  'enrolment.begun': info<'gateway' | 'url'>(),
  'enrolment.code-used': warn.byPeer<'gateway' | 'reason', never, { key: string }>(),
  'enrolment.done': info<'gateway' | 'server'>(),
  'enrolment.failed': error<'gateway' | 'reason'>(),
  'enrolment.file-damaged': error<never, never, { file: string; aside: string }>(),
  'enrolment.manifest-taken': info<never, never, { batch: string; boards: number }>(),
  'enrolment.refused': warn<'gateway' | 'reason'>(),
  'enrolment.request-refused': warn.byPeer<'reason', 'gateway', { claim: string }>(),
  'enrolment.requested': warn.byPeer<'gateway' | 'reason', never, { key: string; claim: string }>(),
  'enrolment.waiting': info<'gateway' | 'reason'>(),

  // Fan-outs.
  'fanout.ended': info<'name' | 'done' | 'failed'>(),
  'fanout.started': info<'name' | 'devices' | 'server'>(),
  'fanout.unreadable': warn<'name' | 'server' | 'reason'>(),

  // Gateways as a whole.
  'gateway.cloned': error.byPeer<'gateway' | 'reason'>(),
  'gateway.departed': warn<'gateway', never, { by: string; order: string }>(),
  'gateway.departure-ordered': warn<'gateway', never, { by: string; order: string }>(),
  'gateway.departure-refused': error<'gateway' | 'reason', never, { order: string }>(),
  'gateway.given-up': error<'gateway' | 'reason'>(),
  'gateway.handed-over': info<'gateway' | 'devices'>(),
  'gateway.new-epoch': warn.byPeer<'gateway', never, { epoch: string }>(),
  'gateway.over-rate': warn.byPeer<'gateway' | 'refused', never, { limit: string }>(),
  'gateway.problem': warn.byPeer<'gateway' | 'reason'>(),
  'gateway.replaced': warn<'gateway' | 'devices'>(),
  'gateway.reset': warn<never, never, { by: string }>(),
  'gateway.socket-lost': warn<'reason', never, { socket: string }>(),
  'gateway.socket-made': info<never, never, { socket: string }>(),
  'gateway.started': info<'gateway' | 'port' | 'devices' | 'rss' | 'free'>(),
  'gateway.state': info.byPeer<'gateway' | 'online'>(),
  'gateway.stopping': info<'gateway'>(),

  // Gateways behind gateways.
  'hierarchy.package-refused': warn.byPeer<'device', 'via'>(),
  'hierarchy.refused': warn.byPeer<'child' | 'reason'>(),

  // The HTTP binding.
  'http.failed': error.byPeer<'message', 'stack'>(),
  'http.insecure': warn<'security'>(),
  'http.listening': info<'url'>(),
  'http.refused': warn.byPeer<'peer' | 'status' | 'reason'>(),

  // The cache of images for devices.
  'image.broke-off': warn<'image' | 'received' | 'reason'>(),
  'image.coming': info<'image', 'total' | 'reason', { from: number }>(),
  'image.evicted': info<'image', 'bytes'>(),
  'image.failed': warn<'image' | 'result' | 'reason'>(),
  'image.ready': info<'image', 'bytes'>(),

  // The join window, in which devices that no list has may join.
  'join.closed': info<'reason' | 'devices'>(),
  'join.forgotten': info<'device'>(),
  'join.joined': warn<'device' | 'peer' | 'protocol', never, { key: string }>(),
  'join.opened': warn<'devices', never, { minutes: number; by: string }>(),
  'join.refused': warn.byPeer<'device' | 'peer' | 'reason'>(),

  // LwM2M clients and their bootstrap server.
  'lwm2m.bootstrap-failed': warn.byPeer<'device' | 'peer' | 'reason'>(),
  'lwm2m.bootstrapped': info.byPeer<'device' | 'peer'>(),
  'lwm2m.insecure': warn<'security'>(),

  // The MQTT binding.
  'mqtt.allowed': info<never, never, { access: string; topic: string }>(),
  'mqtt.answer-lost': warn.byPeer<'gateway' | 'reason'>(),
  'mqtt.connect-failed': warn<'url' | 'reason' | 'retryInSeconds', never, { protocol: number }>(),
  'mqtt.connected': info<'url', never, { protocol: number }>(),
  'mqtt.disconnected': warn<'url' | 'reason' | 'retryInSeconds'>(),
  'mqtt.malformed': warn.byPeer<'reason', 'gateway'>(),
  'mqtt.other-name': warn<'gateway' | 'reason', never, { file: string }>(),
  'mqtt.outcome-lost': warn.byPeer<'reason'>(),
  'mqtt.packet-limit': warn<'bytes', never, { limit: number }>(),
  'mqtt.refused': warn<'reason', never, { access: string; topic: string }>(),
  'mqtt.rival': warn<'reason', never, { client: string }>(),
  'mqtt.state-failed': warn<'reason'>(),
  'mqtt.unanswered': warn<'reason', never, { topic: string }>(),
  'mqtt.unexpected-answer': debug.byPeer<never, 'device' | 'server'>(),
  'mqtt.version-refused': info<'url' | 'reason', never, { protocol: number; next: number }>(),

  // The network of a board.
  'network.fell-back': warn<never, never, { uplink: string }>(),

  // Package #0, by which a DM server asks for a session.
  'notification.delivered': info.byPeer<'device' | 'server', never, { code: string }>(),
  'notification.denied': warn.byPeer<'server' | 'reason' | 'refused', 'device'>(),
  'notification.failed': warn.byPeer<'gateway' | 'reason'>(),
  'notification.no-address': warn.byPeer<'device' | 'server' | 'reason'>(),
  'notification.refused': warn.byPeer<'server'>(),
  'notification.rejected': warn.byPeer<'device' | 'server', never, { code: string }>(),
  'notification.resync': warn.byPeer<'device' | 'gateway'>(),
  'notification.sent': info<'device' | 'gateway'>(),

  // DM packages as they reach the head-end.
  'package.failed': error.byPeer<'gateway' | 'status' | 'reason', 'device'>(),
  'package.for-another': debug.byPeer<'gateway', 'server'>(),
  'package.refused': warn.byPeer<'gateway' | 'status' | 'reason', 'device'>(),

  // The parent of a child gateway.
  'parent.bootstrapped': info<'parent'>(),
  'parent.connected': info<'parent'>(),
  'parent.insecure': warn<'parent'>(),
  'parent.lost': warn<'parent'>(),
  'parent.unreachable': warn<'parent' | 'reason'>(),

  // The process of a party.
  'process.cannot-serve': error<'reason'>(),
  'process.start-failed': error<'reason'>(),

  // Registrations of LwM2M clients.
  'registration.duplicate': warn.byPeer<'device' | 'peer'>(),
  'registration.not-attached': warn.byPeer<'device' | 'reason'>(),
  'registration.proven': info.byPeer<'device', 'manufacturer' | 'model' | 'firmware' | 'deviceType'>(),
  'registration.refused': warn.byPeer<'device' | 'peer' | 'reason'>(),
  'registration.silent-device': warn.byPeer<'device' | 'reason'>(),
  'registration.taken': info.byPeer<'device' | 'peer' | 'version'>(),

  // The head-end in front of a DM server that speaks HTTP.
  'relay.foreign-uri': warn.byPeer<'origin'>(),
  'relay.forwarded': debug.byPeer<'device' | 'gateway' | 'up' | 'down'>(),

  // DM sessions of clients, at the gateway or the head-end as their DM server.
  'session.alert': info.byPeer<'device', never, { alert: number }>(),
  'session.ended': info.byPeer<'device' | 'session' | 'status', 'gateway' | 'peer' | 'reason'>(),
  'session.failed': warn.byPeer<'device' | 'status' | 'reason', 'session' | 'gateway' | 'peer'>(),
  'session.locked-out': warn.byPeer<'device' | 'peer' | 'reason'>(),
  'session.refused': warn.byPeer<'peer' | 'reason', 'device'>(),
  'session.stale-account': warn.byPeer<'device' | 'peer'>(),
  'session.started': info.byPeer<'device' | 'session', 'gateway'>(),
  'session.unknown-device': warn.byPeer<'device' | 'peer'>(),

  // Slots of `postern launch`.
  'slot.ended': error<'slot', never, { code: number }>(),
  'slot.lost': error<'slot' | 'version'>(),
  'slot.recovered': error<'slot' | 'version'>(),
  'slot.silent': error<'slot'>(),
  'slot.starting': info<'slot' | 'tried'>(),
  'slot.unusable': error<'slot' | 'reason'>(),

  // The state file.
  'state.copy-failed': error<'reason'>(),
  'state.corrupt': error<'reason', never, { file: string; aside: string; used: string; since: string }>(),
  'state.failing': error<'reason'>(),
  'state.key-unusable': warn<'reason', never, { file: string }>(),
  'state.new-epoch': info<never, never, { epoch: string }>(),
  'state.row-set-aside': error<'reason', never, { table: string; rows: number; row: string }>(),
  'state.sealed-lost': error<never, never, { rows: number; key: string }>(),
  'state.taken-back': warn<'server', never, { epoch: string }>(),
  'state.writable': info<never, never, { seconds: number }>(),

  // Values of devices on their way to DM servers.
  'telemetry.begun': info<'name' | 'server'>(),
  'telemetry.delivered': debug<'server' | 'values' | 'bytes'>(),
  'telemetry.dropped': warn<'server' | 'values'>(),
  'telemetry.ended': info<'name' | 'reason'>(),
  'telemetry.foreign': warn.byPeer<'gateway' | 'values', never, { refused: number }>(),
  'telemetry.lost': warn.byPeer<'gateway' | 'values'>(),
  'telemetry.received': debug<'gateway' | 'values' | 'bytes'>(),
  'telemetry.refused': warn<'server' | 'status' | 'values'>(),

  // Triggers.
  'trigger.ended': info<'name' | 'done' | 'failed'>(),
  'trigger.started': info<'name' | 'devices' | 'server'>(),
  'trigger.unreadable': warn<'name' | 'server' | 'reason'>(),

  // Packages between devices and DM servers that go through the gateway untouched.
  'tunnel.device-refused': warn.byPeer<'device' | 'peer' | 'reason', never, { refused: number }>(),
  'tunnel.failed': warn.byPeer<'device' | 'server' | 'reason', never, { code: string }>(),
  'tunnel.forwarded': debug.byPeer<'device' | 'server' | 'up' | 'down'>(),
  'tunnel.package-refused': warn.byPeer<'peer' | 'status' | 'reason', 'device'>(),
  'tunnel.refused': warn.byPeer<'device' | 'server' | 'status' | 'reason'>(),
  'tunnel.unknown-server': warn.byPeer<'server' | 'peer'>(),

  // Updates of the gateway itself.
  'update.delta': info<'bytes' | 'total'>(),
  'update.delta-failed': warn<'reason'>(),
  'update.download-broken': warn<'reason' | 'received'>(),
  'update.download-progress': info<'received', 'total'>(),
  'update.downloaded': info<never, never, { from: string }>(),
  'update.downloading': info<never, 'total' | 'reason', { from: number }>(),
  'update.ended': info<'operation' | 'result', 'version'>(),
  'update.failed': warn<'operation' | 'result', 'version' | 'reason'>(),
  'update.healthy': info<'slot' | 'version'>(),
  'update.install-progress': info<'slot' | 'percent'>(),
  'update.installing': info<'slot' | 'version'>(),
  'update.not-healthy': error<'slot' | 'version' | 'reason'>(),
  'update.not-healthy-yet': info<'reason'>(),
  'update.restarting': info<'slot' | 'version'>(),
  'update.revocation-list': info<never, never, { lists: number }>(),
  'update.waiting': info<never, never, { window: string }>(),

  // The watchdog of the board.
  'watchdog.hungry': error<'reason'>(),
};

export type EventName = keyof typeof eventTable;

export const severityOf = (name: EventName): Severity => eventTable[name].severity;

/** Whether a peer can cause this event as often as the peer likes. */
export const isByPeer = (name: EventName): boolean => eventTable[name].byPeer;

/** Fields of an event. */
export type FieldsOf<Name extends EventName> = FieldsIn<(typeof eventTable)[Name]>;
