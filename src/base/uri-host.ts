/** An IP address or host name as a URI has it: an IPv6 address is put in brackets (RFC 3986, section 3.2.2). */
export const uriHost = (host: string): string => (host.includes(':') ? `[${host}]` : host);
