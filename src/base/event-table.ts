import { debug, error, type FieldsIn, info, type Severity, warn } from './event-fields.ts';

/**
 * All events. Names and severities are an operator's interface, in log lines and in the counts of `postern status`. A name has one
 * meaning and one severity, whoever emits it.
 */
export const eventTable = {
  // Adaptation mode: updates of LwM2M clients.
  'adaptation.update-ended': info<'device' | 'result'>(),
  'adaptation.update-failed': warn<'device' | 'reason'>(),

  // Alerts: on their way out of the gateway's outbox, and as the DM server takes them.
  'alert.command-fanout': info<'gateway' | 'name' | 'bytes', 'correlator'>(),
  'alert.delivered': info<'device' | 'alert' | 'sequence' | 'status' | 'server'>(),
  'alert.device-attach': info<'device' | 'gateway' | 'bootstrap', 'manufacturer' | 'model'>(),
  'alert.device-detach': info<'device' | 'gateway' | 'reason'>(),
  'alert.device-presence': info<'device' | 'gateway', 'reason', { state: string }>(),
  'alert.device-trigger': info<'gateway' | 'name' | 'bytes', 'correlator'>(),
  'alert.firmware-update': info<'party' | 'operation' | 'result', 'correlator'>(),
  'alert.gateway-fault': warn<'gateway' | 'reason', never, { kind: string }>(),
  'alert.image-operation': info<'gateway' | 'name' | 'bytes', 'correlator'>(),
  'alert.location-update': info<'device' | 'gateway' | 'address', 'before'>(),
  'alert.refused': warn<'device' | 'alert' | 'sequence' | 'status' | 'server'>(),
  'alert.set-aside': error<'device' | 'alert' | 'sequence' | 'server' | 'reason'>(),
  'alert.unanswered': warn<'server' | 'session' | 'alerts'>(),

  // The head-end's HTTP API.
  'api.failed': error<'message', 'stack'>(),
  'api.listening': info<'url'>(),

  // Work that nobody waits for.
  'background.failed': error<'reason', 'stack', { work: string; failures: number }>(),

  // How devices get an account for a gateway.
  'bootstrap.assisted': info<'device' | 'gateway' | 'status' | 'instead'>(),
  'bootstrap.assisted-failed': warn<'device' | 'gateway' | 'reason', 'status'>(),
  'bootstrap.duplicate-id': warn<'device' | 'peer'>(),
  'bootstrap.issued': info<'device' | 'peer'>(),
  'bootstrap.refused': warn<'device' | 'peer' | 'reason'>(),
  'bootstrap.stale-challenge': warn<'device' | 'peer'>(),

  // The data budget of the uplink.
  'budget.restored': info<'traffic'>(),
  'budget.short': warn<'traffic', never, { period: string; used: number; limit: number }>(),

  // CoAP endpoints, their addresses and sockets.
  'coap.address-gone': info<'address' | 'interface'>(),
  'coap.bad-option': debug<'option' | 'peer'>(),
  'coap.bind-failed': warn<'address' | 'port' | 'reason'>(),
  'coap.handler-failed': error<'message', 'stack'>(),
  'coap.insecure': warn<'security'>(),
  'coap.join-failed': debug<'group' | 'interface' | 'reason'>(),
  'coap.listening': info<'address' | 'port'>(),
  'coap.malformed': debug<'reason' | 'peer'>(),
  'coap.no-interface': warn<'wanted'>(),
  'coap.overload': warn<'working'>(),
  'coap.socket-error': warn<'address' | 'reason'>(),

  // A configuration that is read again.
  'config.refused': warn<'reason'>(),
  'config.reloaded': info<never, never, { keys: string }>(),
  'config.restart-needed': warn<never, never, { keys: string }>(),

  // What becomes of a device: at the gateway, at the head-end, and as the reference device tells it.
  'device.account-dropped': warn<'device' | 'server'>(),
  'device.account-taken': info<'device' | 'gateway'>(),
  'device.address-changed': info<'device' | 'address'>(),
  'device.attach-done': info<'device' | 'gateway'>(),
  'device.attach-failed': warn<'device' | 'reason', 'retryInSeconds', { code: string }>(),
  'device.attached': info<'device' | 'bootstrap', 'peer' | 'protocol' | 'via'>(),
  'device.bootstrapped': info<'device' | 'server'>(),
  'device.command': info<'device' | 'server' | 'command' | 'status', 'uri'>(),
  'device.detached': info<'device' | 'reason', 'via'>(),
  'device.discovered': info<'device' | 'gateway' | 'resources'>(),
  'device.download-failed': warn<'device' | 'reason'>(),
  'device.downloaded': info<'device' | 'bytes'>(),
  'device.executed': info<'device' | 'path'>(),
  'device.expected': info<'device'>(),
  'device.let-go': info<'device' | 'gateway' | 'status'>(),
  'device.location-changed': info<'device' | 'address', never, { from: string }>(),
  'device.moved': info<'device', never, { from: string }>(),
  'device.notification-refused': warn<'device' | 'server'>(),
  'device.notified': info<'device' | 'server' | 'session'>(),
  'device.reached': info<'device', 'via'>(),
  'device.report-failed': warn<'device' | 'reason'>(),
  'device.restarts': info<'device' | 'reason'>(),
  'device.session-ended': info<'device' | 'server' | 'session' | 'status'>(),
  'device.session-failed': warn<'device' | 'server' | 'reason'>(),
  'device.session-started': info<'device' | 'server' | 'session' | 'tunnelled'>(),
  'device.unreachable': warn<'device' | 'reason', 'via'>(),
  'device.update-failed': warn<'device' | 'result' | 'reason'>(),
  'device.updated': info<'device' | 'version', 'bytes'>(),
  'device.written': info<'device' | 'path'>(),

  // DM sessions of the gateway with its DM servers.
  'dm.command': info<'server' | 'session' | 'command' | 'status', 'uri'>(),
  'dm.session-ended': info<'server' | 'session' | 'status'>(),
  'dm.session-failed': warn<'server' | 'session' | 'reason'>(),
  'dm.session-started': info<'server' | 'session' | 'alerts' | 'notified'>(),

  // Fan-outs.
  'fanout.ended': info<'name' | 'done' | 'failed'>(),
  'fanout.started': info<'name' | 'devices' | 'server'>(),
  'fanout.unreadable': warn<'name' | 'server' | 'reason'>(),

  // Gateways as a whole.
  'gateway.new-epoch': warn<'gateway', never, { epoch: string }>(),
  'gateway.problem': warn<'gateway' | 'reason'>(),
  'gateway.started': info<'gateway' | 'port' | 'devices' | 'rss' | 'free'>(),
  'gateway.state': info<'gateway' | 'online'>(),
  'gateway.stopping': info<'gateway'>(),

  // Gateways behind gateways.
  'hierarchy.package-refused': warn<'device', 'via'>(),
  'hierarchy.refused': warn<'child' | 'reason'>(),

  // The HTTP binding.
  'http.failed': error<'message', 'stack'>(),
  'http.insecure': warn<'security'>(),
  'http.listening': info<'url'>(),

  // The cache of images for devices.
  'image.broke-off': warn<'image' | 'received' | 'reason'>(),
  'image.coming': info<'image', 'total' | 'reason', { from: number }>(),
  'image.evicted': info<'image', 'bytes'>(),
  'image.failed': warn<'image' | 'result' | 'reason'>(),
  'image.ready': info<'image', 'bytes'>(),

  // LwM2M clients and their bootstrap server.
  'lwm2m.bootstrap-failed': warn<'device' | 'peer' | 'reason'>(),
  'lwm2m.bootstrapped': info<'device' | 'peer'>(),
  'lwm2m.insecure': warn<'security'>(),

  // The MQTT binding.
  'mqtt.allowed': info<never, never, { access: string; topic: string }>(),
  'mqtt.answer-lost': warn<'gateway' | 'reason'>(),
  'mqtt.connect-failed': warn<'url' | 'reason' | 'retryInSeconds', never, { protocol: number }>(),
  'mqtt.connected': info<'url', never, { protocol: number }>(),
  'mqtt.disconnected': warn<'url' | 'reason' | 'retryInSeconds'>(),
  'mqtt.malformed': warn<'reason', 'gateway'>(),
  'mqtt.outcome-lost': warn<'reason'>(),
  'mqtt.packet-limit': warn<'bytes', never, { limit: number }>(),
  'mqtt.refused': warn<'reason', never, { access: string; topic: string }>(),
  'mqtt.rival': warn<'reason', never, { client: string }>(),
  'mqtt.state-failed': warn<'reason'>(),
  'mqtt.unanswered': warn<'reason', never, { topic: string }>(),
  'mqtt.unexpected-answer': debug<never, 'device' | 'server'>(),
  'mqtt.version-refused': info<'url' | 'reason', never, { protocol: number; next: number }>(),

  // Package #0, by which a DM server asks for a session.
  'notification.delivered': info<'device' | 'server', never, { code: string }>(),
  'notification.failed': warn<'gateway' | 'reason'>(),
  'notification.no-address': warn<'device' | 'server'>(),
  'notification.refused': warn<'server'>(),
  'notification.rejected': warn<'device' | 'server', never, { code: string }>(),
  'notification.resync': warn<'device' | 'gateway'>(),
  'notification.sent': info<'device' | 'gateway'>(),

  // DM packages as they reach the head-end.
  'package.failed': error<'gateway' | 'status' | 'reason', 'device'>(),
  'package.for-another': debug<'gateway', 'server'>(),
  'package.refused': warn<'gateway' | 'status' | 'reason', 'device'>(),

  // The parent of a child gateway.
  'parent.bootstrapped': info<'parent'>(),
  'parent.connected': info<'parent'>(),
  'parent.lost': warn<'parent'>(),
  'parent.unreachable': warn<'parent' | 'reason'>(),

  // The process of a party.
  'process.cannot-serve': error<'reason'>(),

  // Registrations of LwM2M clients.
  'registration.duplicate': warn<'device' | 'peer'>(),
  'registration.not-attached': warn<'device' | 'reason'>(),
  'registration.proven': info<'device', 'manufacturer' | 'model' | 'firmware' | 'deviceType'>(),
  'registration.refused': warn<'device' | 'peer'>(),
  'registration.silent-device': warn<'device' | 'reason'>(),
  'registration.taken': info<'device' | 'peer' | 'version'>(),

  // The head-end in front of a DM server that speaks HTTP.
  'relay.foreign-uri': warn<'origin'>(),
  'relay.forwarded': debug<'device' | 'gateway' | 'up' | 'down'>(),

  // DM sessions of clients, at the gateway or the head-end as their DM server.
  'session.alert': info<'device', never, { alert: number }>(),
  'session.ended': info<'device' | 'session' | 'status', 'gateway' | 'peer' | 'reason'>(),
  'session.failed': warn<'device' | 'status' | 'reason', 'session' | 'gateway' | 'peer'>(),
  'session.stale-account': warn<'device' | 'peer'>(),
  'session.started': info<'device' | 'session', 'gateway'>(),
  'session.unknown-device': warn<'device' | 'peer'>(),

  // Slots of `postern launch`.
  'slot.ended': error<'slot', never, { code: number }>(),
  'slot.starting': info<'slot' | 'tried'>(),

  // The state file.
  'state.copy-failed': error<'reason'>(),
  'state.corrupt': error<'reason', never, { file: string; aside: string; used: string; since: string }>(),
  'state.failing': error<'reason'>(),
  'state.new-epoch': info<never, never, { epoch: string }>(),
  'state.row-set-aside': error<'reason', never, { table: string; rows: number; row: string }>(),
  'state.writable': info<never, never, { seconds: number }>(),

  // Triggers.
  'trigger.ended': info<'name' | 'done' | 'failed'>(),
  'trigger.started': info<'name' | 'devices' | 'server'>(),
  'trigger.unreadable': warn<'name' | 'server' | 'reason'>(),

  // Packages between devices and DM servers that go through the gateway untouched.
  'tunnel.failed': warn<'device' | 'server' | 'reason', never, { code: string }>(),
  'tunnel.forwarded': debug<'device' | 'server' | 'up' | 'down'>(),
  'tunnel.refused': warn<'device' | 'server' | 'status' | 'reason'>(),
  'tunnel.unknown-server': warn<'server' | 'peer'>(),

  // Updates of the gateway itself.
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

  // The watchdog of the board.
  'watchdog.hungry': error<'reason'>(),
};

export type EventName = keyof typeof eventTable;

export const severityOf = (name: EventName): Severity => eventTable[name];

/** Fields of an event. */
export type FieldsOf<Name extends EventName> = FieldsIn<(typeof eventTable)[Name]>;
