import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { admissionDefaults, admissionTable, partyProofs } from '../../src/base/admission.ts';
import { cborLimits } from '../../src/base/cbor-profile.ts';
import { logBytes } from '../../src/base/durability.ts';
import { repetitionLimits } from '../../src/base/repeated-events.ts';
import { setAsideLimits } from '../../src/base/rows.ts';
import { logTextLimits } from '../../src/base/safe-text.ts';
import { ownLimits } from '../../src/dm/header.ts';
import { guessRates } from '../../src/dm/proof-guard.ts';
import { messageBound, refusalBound, weightBound } from '../../src/dm/session-bounds.ts';
import { branchLimits } from '../../src/dm/stored-branch.ts';
import { campaignLimits } from '../../src/gateway/modes/campaign-parts.ts';
import { telemetryLimits } from '../../src/gateway/modes/telemetry.ts';
import { pollLimits } from '../../src/gateway/modes/value-poller.ts';
import { reportLimits } from '../../src/gateway/northbound/telemetry-reports.ts';
import { hierarchyDepth } from '../../src/gateway/rights/child-scope.ts';
import { arrivalLimits } from '../../src/gateway/southbound/arrival-queue.ts';
import { sessionLimits as deviceSessions } from '../../src/gateway/southbound/device-sessions.ts';
import { connectionDefaults, httpTimes } from '../../src/gateway/southbound/http-binding.ts';
import { bodyBounds } from '../../src/gateway/southbound/http-bodies.ts';
import { joinLimits } from '../../src/gateway/southbound/join-window.ts';
import { floorBurst } from '../../src/gateway/southbound/notification-floor.ts';
import { observationBounds } from '../../src/gateway/southbound/observer.ts';
import { pendingBounds } from '../../src/gateway/southbound/pending-registrations.ts';
import { sendBounds } from '../../src/gateway/southbound/send-resource.ts';
import { undeliverableLimit } from '../../src/gateway/store/outbox.ts';
import { newDevices } from '../../src/headend/alert-handler.ts';
import { apiConnections, apiLimits } from '../../src/headend/api.ts';
import { guardLimits } from '../../src/headend/api-guard.ts';
import { childWayLimits } from '../../src/headend/child-ways.ts';
import { cloneLimits } from '../../src/headend/clone-watch.ts';
import { valueRows } from '../../src/headend/device-values.ts';
import { notificationLimit } from '../../src/headend/downlink.ts';
import { codeLimit } from '../../src/headend/enrolment-codes.ts';
import { enrolmentLimits } from '../../src/headend/enrolment-records.ts';
import { budgetLimits } from '../../src/headend/gateway-budget.ts';
import { observationLimit } from '../../src/headend/observation-desk.ts';
import { orderLimits } from '../../src/headend/order-book.ts';
import { answerLimits } from '../../src/headend/package-answers.ts';
import { recordLimits } from '../../src/headend/records.ts';
import { sessionLimit as relayedSessions } from '../../src/headend/relay.ts';
import { waitingLimit } from '../../src/headend/session-orders.ts';
import { bytesOfSession, sessionLimits as partySessions } from '../../src/headend/sessions.ts';
import { triggerLimit } from '../../src/headend/triggered-sessions.ts';
import { observationLimits } from '../../src/mo/observation-order.ts';
import { valueLimits } from '../../src/mo/telemetry-report.ts';
import { deduplicationDefaults } from '../../src/wire/coap/deduplication.ts';
import { endpointDefaults } from '../../src/wire/coap/endpoint-limits.ts';
import { mostAnswersDue } from '../../src/wire/coap/exit.ts';
import { observeDefaults } from '../../src/wire/coap/observe.ts';
import { blockwiseDefaults } from '../../src/wire/coap/transfers.ts';
import { mostCertificates } from '../../src/wire/secure/dtls/certificate-messages.ts';
import { dtlsDefaults } from '../../src/wire/secure/dtls/endpoint-parts.ts';
import { handshakeLimits } from '../../src/wire/secure/dtls/flights.ts';
import { reassemblyLimits } from '../../src/wire/secure/dtls/reassembly.ts';
import { messageLimits } from '../../src/wire/syncml/elements.ts';
import { enrolmentBytes } from '../../src/wire/tunnel/enrolment-message.ts';

/** How the table writes numbers of entries, bytes and milliseconds. */
const n = (count: number) => (count < 10_000 ? String(count) : count.toLocaleString('en'));
const size = (bytes: number) =>
  bytes < 1024 * 1024 ? `${bytes / 1024} KiB` : `${bytes / (1024 * 1024)} MiB`;
/** The table calls 2 MiB of replies 2 MB, as the page does for what is measured. */
const megabytes = (bytes: number) => `${bytes / (1024 * 1024)} MB`;
const seconds = (milliseconds: number) => `${milliseconds / 1000} s`;

const { address, prefix, newcomers, known, allKnown } = admissionDefaults;
const { strangers } = bodyBounds;

/** Rows of the tables by how they begin, and what their bounds must say. */
const rows: readonly (readonly [row: string, ...says: string[]])[] = [
  [
    'Conversations of one address',
    ...[address, prefix, newcomers].flatMap(({ rate, burst }) => [n(rate), n(burst)]),
  ],
  ['The same of one known address', ...[known, allKnown].flatMap(({ rate, burst }) => [n(rate), n(burst)])],
  ['Proofs of one party at new places', n(partyProofs.burst)],
  ['Datagrams of one proven peer', n(admissionDefaults.proven.rate), n(admissionDefaults.allProven.rate)],
  [
    'Multicast requests of one address',
    n(admissionDefaults.multicast.rate),
    n(admissionDefaults.multicast.burst),
    n(admissionDefaults.allMulticast.rate),
  ],
  ['Orders that wait for devices that come by themselves', n(waitingLimit)],
  ['Children of one broker gateway that are asked', n(childWayLimits.asking), n(childWayLimits.asked)],
  [
    'Token buckets',
    n(admissionTable.addresses),
    n(admissionTable.prefixes),
    n(admissionTable.parties),
    n(admissionTable.proven),
  ],
  ['Known addresses', n(admissionTable.known)],
  ['Datagrams of one conversation', n(mostAnswersDue)],
  [
    'Exchanges remembered for deduplication',
    n(deduplicationDefaults.entries),
    n(deduplicationDefaults.entriesPerPeer),
    megabytes(deduplicationDefaults.bytes),
    seconds(deduplicationDefaults.lifetime),
  ],
  ['Requests in work in one endpoint', n(endpointDefaults.concurrentRequests)],
  ['Responses to multicast requests that wait', n(endpointDefaults.multicastResponses)],
  ['Requests that wait until the event loop', n(arrivalLimits.requests), size(arrivalLimits.bytes)],
  ['Observations at the peers of one endpoint', n(endpointDefaults.observations)],
  ['Paths that are observed of one LwM2M client', n(observationBounds.paths)],
  ['Notifications of one client', n(floorBurst)],
  ['Bytes of one Send', size(sendBounds.bytes), n(sendBounds.rate.burst), n(sendBounds.clients)],
  ['Own requests that wait for a response', n(endpointDefaults.pendingRequests)],
  [
    'Block-wise transfers, for each direction',
    size(blockwiseDefaults.bodyBytes),
    n(blockwiseDefaults.transfersPerPeer),
    n(blockwiseDefaults.transfers),
    megabytes(blockwiseDefaults.totalBytes),
    seconds(blockwiseDefaults.idle),
  ],
  [
    'Observers',
    n(observeDefaults.observers),
    n(observeDefaults.observersPerPeer),
    n(observeDefaults.unproven.entries),
    n(observeDefaults.unproven.perAddress),
    n(observeDefaults.unproven.perPrefix),
  ],
  [
    'Reports of values that wait',
    n(reportLimits.waiting),
    size(reportLimits.bytes),
    size(reportLimits.session),
    n(reportLimits.values),
    n(valueLimits.value),
  ],
  [
    'Observations that run',
    n(telemetryLimits.running),
    n(observationLimits.paths),
    n(telemetryLimits.refusals),
  ],
  [
    'OMA DM devices that are asked for values',
    n(pollLimits.parallel),
    `${pollLimits.spacing} ms`,
    `${pollLimits.period} s`,
  ],
  ['Values kept', n(valueRows.latest), n(valueRows.history)],
  ['Observations remembered', n(observationLimit)],
  ['Proven peers', n(endpointDefaults.provenPeers)],
  ['A message of enrolment', size(enrolmentBytes)],
  ['Boards that wait for a person', n(enrolmentLimits.waitingOfClaim), n(enrolmentLimits.waiting)],
  ['Boards that the head-end knows', n(enrolmentLimits.all)],
  ['One-time codes', n(codeLimit)],
  ['Gateways whose boots', n(cloneLimits.gateways), n(cloneLimits.boots)],
  ['Sessions with devices', n(deviceSessions.sessions), seconds(deviceSessions.idle)],
  [
    'Bytes that all these sessions hold: unfinished',
    size(deviceSessions.bytes.share),
    size(deviceSessions.bytes.pool),
  ],
  ['Bytes that one session holds', size(weightBound)],
  ['Messages of one session', n(messageBound)],
  [
    'The same of one device from all addresses',
    ...[guessRates.party, guessRates.address, guessRates.total].map(({ burst }) => n(burst)),
  ],
  ['The same of one device from one IPv4', n(guessRates.share.burst)],
  [
    'HTTP connections',
    n(connectionDefaults.total),
    n(connectionDefaults.strangers),
    n(connectionDefaults.perPrefix),
    n(connectionDefaults.perAddress),
  ],
  [
    'Bodies of HTTP requests',
    n(bodyBounds.known.entries),
    size(bodyBounds.known.bytes),
    n(strangers.entries),
    size(strangers.bytes),
  ],
  [
    'Time for the headers of a request',
    ...[httpTimes.headers, httpTimes.request, httpTimes.idle, httpTimes.silence].map(seconds),
  ],
  [
    'A DM message',
    size(messageLimits.bytes),
    n(messageLimits.elements),
    n(messageLimits.commands),
    `depth ${messageLimits.depth}`,
    `${messageLimits.value / 1024} Ki characters`,
  ],
  ['SessionID; RespURI', n(messageLimits.sessionId), n(messageLimits.respUri)],
  ['A message that the engine sends', size(ownLimits.maxMsgSize)],
  ['A large object', size(ownLimits.maxObjSize)],
  ['A CBOR document', n(cborLimits.total), n(cborLimits.items), n(cborLimits.depth)],
  ['Value of a node', size(branchLimits.valueBytes), n(branchLimits.nodes)],
  ['Title of a node', n(branchLimits.titleBytes)],
  ['Alerts that were set aside', n(undeliverableLimit)],
  ['Write-ahead log of the state', size(logBytes.growth), size(logBytes.atMost)],
  ['Gateways below each other', n(hierarchyDepth)],
  ['Campaigns of one kind that run', n(campaignLimits.running)],
  ['Devices of one campaign in work', n(campaignLimits.parallel), n(campaignLimits.perTurn)],
  [
    'Handshakes that devices have begun',
    n(dtlsDefaults.halfOpen.entries),
    n(dtlsDefaults.halfOpen.perAddress),
    n(dtlsDefaults.halfOpen.perPrefix),
  ],
  ['Handshakes that this end has begun', n(dtlsDefaults.outgoing)],
  ['Flights of one handshake', n(handshakeLimits.transmissions)],
  ['Bytes of one message, a chain', ...Object.values(reassemblyLimits).map((count: number) => n(count))],
  ['Certificates of a chain', n(mostCertificates)],
  ['Join window', n(joinLimits.minutes), n(joinLimits.devices)],
  ['Protected records that wait', n(handshakeLimits.early)],
  ['Last flights that may be sent again', n(dtlsDefaults.lingering)],
  [
    'Registrations whose clients have not answered',
    n(pendingBounds.entries),
    n(pendingBounds.perAddress),
    n(pendingBounds.perPrefix),
    size(pendingBounds.bytes),
  ],
  ['Rows in the table', n(setAsideLimits.rows), n(setAsideLimits.characters)],
  [
    'Lines of an event that peers can cause',
    n(repetitionLimits.lines.warn.burst),
    n(repetitionLimits.lines.info.burst),
    n(repetitionLimits.lines.info.perSecond),
  ],
  ['Causes and peers that are remembered', n(repetitionLimits.causes)],
  ['A text in a line', n(logTextLimits.text), n(logTextLimits.stack)],
  ['What is kept of messages that prove nothing', '0 entries', '0 bytes'],
  ['Messages of one gateway that a head-end looks at', n(budgetLimits.remembered), size(budgetLimits.bytes)],
  ['Packages of parties that have not proved themselves', n(2 * budgetLimits.remembered), 'A fifth'],
  ['Sessions with parties', n(partySessions.sessions), seconds(partySessions.idle)],
  [
    'Bytes that all these sessions hold; one session',
    size(partySessions.bytes.share),
    size(partySessions.bytes.pool),
    size(bytesOfSession),
  ],
  ['Packages in work', n(answerLimits.working), size(answerLimits.workingBytes)],
  ['Answers kept for packages', n(answerLimits.kept), size(answerLimits.keptBytes)],
  ['Notifications that wait for their outcome', n(notificationLimit)],
  ['Devices without an account that one gateway', n(newDevices.burst)],
  ['Alerts kept; results kept', n(recordLimits.alerts), n(recordLimits.results), n(recordLimits.problems)],
  ['Orders kept, of each kind', n(orderLimits.CommandFanout)],
  ['Triggers whose sessions are kept', n(triggerLimit)],
  ['Policies kept', n(recordLimits.assignments)],
  ['Connections to the API', ...Object.values(apiConnections).map((count = 0) => n(count))],
  ['Addresses where the token was shown', n(guardLimits.known)],
  [
    'Time for the headers of an API request',
    ...[apiLimits.headers, apiLimits.request, apiLimits.idle].map(seconds),
  ],
  ['Wrong tokens of one IPv4', n(guardLimits.free), seconds(guardLimits.first), n(guardLimits.peers)],
  ['Sessions whose RespURI', n(relayedSessions)],
];

const page = readFileSync(new URL('../../docs/architecture.md', import.meta.url), 'utf8');
const table = page
  .slice(page.indexOf('\n## Bounds\n'))
  .split('\n')
  .filter((line) => line.startsWith('| '))
  .map((line) => line.slice(2, -2).split(' | '));

/** Whether a text has this number, not as a part of a larger one. */
const says = (text: string, number: string): boolean =>
  new RegExp(`(?<![\\d.,])${RegExp.escape(number)}(?![\\d]|[.,]\\d)`).test(text);

test('the table "Bounds" of docs/architecture.md says what the code has', () => {
  const wrong = rows.flatMap(([row, ...numbers]) => {
    const found = table.filter(([what]) => what?.startsWith(row));
    if (found.length !== 1) return [`${found.length} rows begin with '${row}'`];
    const bound = found[0]![1] ?? '';
    return numbers
      .filter((number) => !says(bound, number))
      .map((number) => `${row}: ${number} is not in '${bound}'`);
  });
  assert.deepEqual(wrong, []);
  assert.ok(!says('65,536; 1024', '536') && !says('10.5 s', '10') && says('64; 32', '32'));
});

test('a challenge before a proof has at most the statuses that the table says', () => {
  const row = table.find(([what]) => what === 'What is kept of messages that prove nothing');
  assert.ok(says(row?.[2] ?? '', n(refusalBound)));
});

test('no row is in two tables', () => {
  const names = table.map(([what]) => what);
  assert.deepEqual(
    names.filter((name, at) => name !== 'What' && names.indexOf(name) !== at),
    [],
  );
});
