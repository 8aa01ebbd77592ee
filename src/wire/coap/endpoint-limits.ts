import { type DeduplicationLimits, deduplicationDefaults } from './deduplication.ts';
import { type TransmissionParameters, transmissionDefaults } from './transmission.ts';

/** Bounds and times of one endpoint. */
export interface EndpointLimits {
  readonly deduplication: DeduplicationLimits;
  readonly transmission: TransmissionParameters;
  /**
   * Most requests of proven peers that are being handled at one time. Others have shares of their own (`Workload`). Further
   * requests get 5.03 with a Max-Age. The same bounds hold for responses that are sent separately.
   */
  readonly concurrentRequests: number;
  /** Most responses to multicast requests that wait. */
  readonly multicastResponses: number;
  /** Most requests of this endpoint that wait for a response at one time. */
  readonly pendingRequests: number;
  /** Most observations of this endpoint at its peers at one time. */
  readonly observations: number;
  /**
   * Milliseconds until a slow response is acknowledged first and sent separately (RFC 7252 section 5.2.2). A separate response
   * costs three datagrams more, so it is for responses that come from far. A client repeats its request after 2 s at the
   * earliest (section 4.8), which leaves time for the way.
   */
  readonly piggybackWithin: number;
  /** Milliseconds within which a response to a multicast request goes out, at a random time (section 8.2). */
  readonly leisure: number;
  /** Most peers that are remembered as reachable at the address they claim. */
  readonly provenPeers: number;
}

export const endpointDefaults: EndpointLimits = {
  deduplication: deduplicationDefaults,
  transmission: transmissionDefaults,
  concurrentRequests: 1024,
  multicastResponses: 1024,
  pendingRequests: 1024,
  observations: 65_536,
  piggybackWithin: 1000,
  leisure: 5000,
  provenPeers: 16_384,
};
