package alg

type knownPacket struct {
	source, alg, key, head, plain, cipher string
	esn                                   bool
	high                                  uint32
}

const count32 = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"

const gmacPing = `45000030 da3a0000 8001df3b c0a80005 c0a80001 0800c6cd 02000700 61626364
	65666768 696a6b6c 6d6e6f70 71727374 01020201 `

var knownPackets = []knownPacket{
	{
		source: "FIPS 81 table C1", alg: "des-cbc", key: "0123456789abcdef", head: "00000100 00000001 1234567890abcdef",
		plain:  "4e6f772069732074 68652074696d6520 666f7220616c6c20",
		cipher: "e5c7cdde872bf27c 43e934008c389c0f 683788499a7c05f6",
	},
	{
		source: "openssl enc -des-ede3-cbc", alg: "3des-cbc", key: "0123456789abcdef23456789abcdef01456789abcdef0123",
		head: "00000100 00000001 0f1e2d3c4b5a6978", plain: count32,
		cipher: "fd78773d6002e9402af8b91bdf0ead373d4c9c1c2fe537cb0dbf99d854b308c2",
	},
	{
		source: "openssl enc -aes-192-cbc", alg: "aes-cbc", key: "101112131415161718191a1b1c1d1e1f2021222324252627",
		head: "00000100 00000001 0f1e2d3c4b5a69780f1e2d3c4b5a6978", plain: count32,
		cipher: "67af9ea52a9e06a456590c7437437a9ec70cd20667cb66c867b1a3ba98a082e5",
	},
	{
		source: "openssl enc -aes-256-cbc", alg: "aes-cbc",
		key:  "404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f",
		head: "00000100 00000001 0f1e2d3c4b5a69780f1e2d3c4b5a6978", plain: count32,
		cipher: "c132c1f65fd51556c1379392ae7cd3625683ed20eb2d759c923956456ccf64c0",
	},
	{
		source: "openssl enc -bf-cbc", alg: "blowfish-cbc", key: "0b30557a9fc4e90e33587da2c7ec1136",
		head: "00000100 00000001 0f1e2d3c4b5a6978", plain: count32,
		cipher: "465ef1c13e0502980d0f0bc5ad24a09e2c8c0dbaedf5dcc739ac4f9ca3250a17",
	},
	{
		source: "RFC 2144 appendix B.1", alg: "cast128-cbc", key: "0123456712345678234567893456789a",
		head: "00000100 00000001 0000000000000000", plain: "0123456789abcdef", cipher: "238b4fe5847e44b2",
	},
	{
		source: "openssl enc -cast5-cbc", alg: "cast128-cbc", key: "0b30557a9fc4e90e33587da2c7ec1136",
		head: "00000100 00000001 0f1e2d3c4b5a6978", plain: count32,
		cipher: "634d32648084c5e21aba53c62ddaf148a905f3ffa955934304b205ff46e09263",
	},
	{
		source: "Twofish paper, zero key", alg: "twofish-cbc", key: "00*16",
		head: "00000100 00000001 00*16", plain: "00*16", cipher: "9f589f5cf6122c32b6bfec2f2ae8c35a",
	},
	{
		source: "RFC 3713 appendix A, 128 bits", alg: "camellia-cbc", key: "0123456789abcdeffedcba9876543210",
		head: "00000100 00000001 00*16", plain: "0123456789abcdeffedcba9876543210",
		cipher: "67673138549669730857065648eabe43",
	},
	{
		source: "RFC 3713 appendix A, 192 bits", alg: "camellia-cbc", key: "0123456789abcdeffedcba98765432100011223344556677",
		head: "00000100 00000001 00*16", plain: "0123456789abcdeffedcba9876543210",
		cipher: "b4993401b3e996f84ee5cee7d79b09b9",
	},
	{
		source: "RFC 3713 appendix A, 256 bits", alg: "camellia-cbc",
		key:  "0123456789abcdeffedcba987654321000112233445566778899aabbccddeeff",
		head: "00000100 00000001 00*16", plain: "0123456789abcdeffedcba9876543210",
		cipher: "9acc237dff16d76c20ef7c919e3a7509",
	},
	{
		source: "openssl enc -camellia-128-cbc", alg: "camellia-cbc", key: "0b30557a9fc4e90e33587da2c7ec1136",
		head: "00000100 00000001 0f1e2d3c4b5a69780f1e2d3c4b5a6978", plain: count32,
		cipher: "fdd1d780193c5644cc3273857e9be80e16c8b6c317318a804b42485c1e23966d",
	},
	{
		source: "openssl enc -camellia-256-cbc", alg: "camellia-cbc",
		key:  "0b30557a9fc4e90e33587da2c7ec11365b80a5caef14395e83a8cdf2173c6186",
		head: "00000100 00000001 0f1e2d3c4b5a69780f1e2d3c4b5a6978", plain: count32,
		cipher: "2b781bfda19fab7c64c12009d0996f279207bccca622c2fb56947d7012f42ca6",
	},
	{
		source: "RFC 3602 §4 case 1", alg: "aes-cbc", key: "06a9214036b8a15b512e03d534120006",
		head: "00000100 00000001 3dafba429d9eb430b422da802c9fac41", plain: "53696e676c6520626c6f636b206d7367",
		cipher: "e353779c1079aeb82708942dbe77181a",
	},
	{
		source: "RFC 3602 §4 case 2", alg: "aes-cbc", key: "c286696d887c9aa0611bbb3e2025a45a",
		head: "00000100 00000001 562e17996d093d28ddb3ba695a2e6f58", plain: count32,
		cipher: "d296cd94c2cccf8a3a863028b5e1dc0a7586602d253cfff91b8266bea6d61ab1",
	},
	{
		source: "RFC 3602 §4 case 5", alg: "aes-cbc", key: "90d382b4 10eeba7a d938c46c ec1a82bf",
		head: "00004321 00000001 e96e8c08 ab465763 fd098d45 dd3ff893",
		plain: `08000ebd a70a0000 8e9c083d b95b0700 08090a0b 0c0d0e0f 10111213 14151617
			18191a1b 1c1d1e1f 20212223 24252627 28292a2b 2c2d2e2f 30313233 34353637
			01020304 05060708 090a0b0c 0d0e0e01`,
		cipher: `f663c25d 325c18c6 a9453e19 4e120849 a4870b66 cc6b9965 330013b4 898dc856
			a4699e52 3a55db08 0b59ec3a 8e4b7e52 775b07d1 db34ed9c 538ab50c 551b874a
			a269add0 47ad2d59 13ac19b7 cfbad4a6`,
	},
	{
		source: "RFC 3602 §4 case 7", alg: "aes-cbc", key: "01234567 89abcdef 01234567 89abcdef",
		head: "00008765 00000002 f4e76524 4f6407ad f13dc138 0f673f37",
		plain: `45000054 09040000 4001f988 c0a87b03 c0a87bc8 08009f76 a90a0100 b49c083d
			02a20400 08090a0b 0c0d0e0f 10111213 14151617 18191a1b 1c1d1e1f 20212223
			24252627 28292a2b 2c2d2e2f 30313233 34353637 01020304 05060708 090a0a04`,
		cipher: `773b5241 a4c44922 5e4f3ce5 ed611b0c 237ca96c f74a9301 3c1b0ea1 a0cf70f8
			e4ecaec7 8ac53aad 7a0f022b 859243c6 47752e94 a859352b 8a4d4d2d ecd136e5
			c177f132 ad3fbfb2 201ac990 4c74ee0a 109e0ca1 e4dfe9d5 a100b842 f1c22f0d`,
	},
	{
		source: "RFC 3686 §6 vector 1", alg: "aes-ctr", key: "ae6852f8121067cc4bf7a5765577f39e 00000030",
		head: "00000100 00000001 0000000000000000", plain: "53696e676c6520626c6f636b206d7367",
		cipher: "e4095d4fb7a7b3792d6175a3261311b8",
	},
	{
		source: "RFC 3686 §6 vector 2", alg: "aes-ctr", key: "7e24067817fae0d743d6ce1f32539163 006cb6db",
		head: "00000100 00000001 c0543b59da48d90b", plain: count32,
		cipher: "5104a106168a72d9790d41ee8edad388eb2e1efc46da57c8fce630df9141be28",
	},
	{
		source: "RFC 3686 §6 vector 3", alg: "aes-ctr", key: "7691be035e5020a8ac6e618529f9a0dc 00e0017b",
		head: "00000100 00000001 27777f3f4a1786f0", plain: count32 + " 20212223",
		cipher: "c1cf48a89f2ffdd9cf4652e9efdb72d74540a42bde6d7836d59a5ceaaef3105325b2072f",
	},
	{
		source: "RFC 3686 §6 vector 4", alg: "aes-ctr", key: "16af5b145fc9f579c175f93e3bfb0eed863d06ccfdb78515 00000048",
		head: "00000100 00000001 36733c147d6d93cb", plain: "53696e676c6520626c6f636b206d7367",
		cipher: "4b55384fe259c9c84e7935a003cbe928",
	},
	{
		source: "RFC 3686 §6 vector 5", alg: "aes-ctr", key: "7c5cb2401b3dc33c19e7340819e0f69c678c3db8e6f6a91a 0096b03b",
		head: "00000100 00000001 020c6eadc2cb500d", plain: count32,
		cipher: "453243fc609b23327edfaafa7131cd9f8490701c5ad4a79cfc1fe0ff42f4fb00",
	},
	{
		source: "RFC 3686 §6 vector 6", alg: "aes-ctr", key: "02bf391ee8ecb159b959617b0965279bf59b60a786d3e0fe 0007bdfd",
		head: "00000100 00000001 5cbd60278dcc0912", plain: count32 + " 20212223",
		cipher: "96893fc55e5c722f540b7dd1ddf7e758d288bc95c69165884536c811662f2188abee0935",
	},
	{
		source: "RFC 3686 §6 vector 7", alg: "aes-ctr",
		key:  "776beff2851db06f4c8a0542c8696f6c6a81af1eec96b4d37fc1d689e6c1c104 00000060",
		head: "00000100 00000001 db5672c97aa8f0b2", plain: "53696e676c6520626c6f636b206d7367",
		cipher: "145ad01dbf824ec7560863dc71e3e0c0",
	},
	{
		source: "RFC 3686 §6 vector 8", alg: "aes-ctr",
		key:  "f6d66d6bd52d59bb0796365879eff886c66dd51a5b6a99744b50590c87a23884 00faac24",
		head: "00000100 00000001 c1585ef15a43d875", plain: count32,
		cipher: "f05e231b3894612c49ee000b804eb2a9b8306b508f839d6a5530831d9344af1c",
	},
	{
		source: "RFC 3686 §6 vector 9", alg: "aes-ctr",
		key:  "ff7a617ce69148e4f1726e2f43581de2aa62d9f805532edff1eed687fb54153d 001cc5b7",
		head: "00000100 00000001 51a51d70a1c11148", plain: count32 + " 20212223",
		cipher: "eb6c52821d0bbbf7ce7594462aca4faab407df866569fd07f48cc0b583d6071f1ec0e6b8",
	},
	{
		source: "draft-mcgrew-gcm-test-01 §3 case 1", alg: "aes-gcm-16", key: "4c80cdefbb5d10da906ac73c3613a634 2e443b68",
		head: "00004321 00000000 4956ed7e3b244cfe", esn: true, high: 0x87654321,
		plain: `45000048 699a0000 80114db7 c0a80102 c0a80101 0a9bf156 38d30100 00010000
			00000000 045f7369 70045f75 64700373 69700963 79626572 63697479 02646b00
			00210001 01020201`,
		cipher: `fecf537e 729d5b07 dc30df52 8dd22b76 8d1b9873 6696a6fd 348509fa 13ceac34
			cfa2436f 14a3f3cf 65925bf1 f4a13c5d 15b21e18 84f5ff62 47aeabb7 86b93bce
			61bc17d7 68fd9732 45901814 8f6cbe72 2fd04796 562dfdb4`,
	},
	{
		source: "draft-mcgrew-gcm-test-01 §3 case 2", alg: "aes-gcm-16", key: "feffe9928665731c6d6a8f9467308308 cafebabe",
		head: "0000a5f8 0000000a facedbaddecaf888",
		plain: `4500003e 698f0000 80114dcc c0a80102 c0a80101 0a980035 002a2343 b2d00100
			00010000 00000000 03736970 09637962 65726369 74790264 6b000001 00010001`,
		cipher: `deb22cd9 b07c72c1 6e3a65be eb8df304 a5a5897d 33ae530f 1ba76d5d 114d2a5c
			3de81827 c10e9a4f 51330d0e ec416642 cfbb85a5 b47e48a4 ec3b9ba9 5d918bd1
			83b70d3a a8bc6ee4 c309e9d8 5a41ad4a`,
	},
	{
		source: "draft-mcgrew-gcm-test-01 §3 case 3", alg: "aes-gcm-16",
		key:  "abbccddef00112233445566778899aababbccddef00112233445566778899aab 11223344",
		head: "4a2cbfe3 00000002 0102030405060708",
		plain: `45000030 69a64000 80062690 c0a80102 9389155e 0a9e008b 2dc57ee0 00000000
			70024000 20bf0000 020405b4 01010402 01020201`,
		cipher: `ff425c9b 724599df 7a3bcd51 0194e00d 6a78107f 1b0b1cbf 06efae9d 65a5d763
			748a6379 85771d34 7f054565 9f14e99d ef842d8e b335f4ee cfdbf831 824b4c49 15956c96`,
	},
	{
		source: "draft-mcgrew-gcm-test-01 §3 case 5", alg: "aes-gcm-16", key: "3de09874b388e6491988d0c3607eae1f 57690e43",
		head: "42f67e3f 10101010 4e280000a2fca1a3", esn: true, high: 0x10101010,
		plain: `4500003c 99c30000 8001cb7c 40679318 01010101 0800085c 02004300 61626364
			65666768 696a6b6c 6d6e6f70 71727374 75767761 62636465 66676869 01020201`,
		cipher: `fba2caa4 853cf9f0 f22cb10d 86dd83b0 fec75691 cf1a04b0 0d1138ec 9c357917
			65acbd87 01ad7984 5bf9fe3f ba487bc9 1755e666 2b4c8d0d 1f5e2273 9530320a
			e0d731cc 978ecafa eae88f00 e80d6e48`,
	},
	{
		source: "draft-mcgrew-gcm-test-01 §4", alg: "aes-gmac", key: "4c80cdefbb5d10da906ac73c3613a634 22433c64",
		head: "00004321 00000007 0000000000000000", plain: gmacPing, cipher: gmacPing + "f2a9a836 e155106a a8dcd618 e4099aaa",
	},
	{
		source: "OpenSSL's GCM over SPI, 64-bit sequence number, IV and payload", alg: "aes-gmac",
		key: "4c80cdefbb5d10da906ac73c3613a634 22433c64", esn: true, high: 0x87654321,
		head: "00004321 00000007 4956ed7e3b244cfe", plain: gmacPing, cipher: gmacPing + "83c2e3ed 063573cf c0083a56 29e4603b",
	},
	{
		source: "RFC 7634 appendix A", alg: "chacha20-poly1305",
		key:  `80818283 84858687 88898a8b 8c8d8e8f 90919293 94959697 98999a9b 9c9d9e9f a0a1a2a3`,
		head: "01020304 00000005 1011121314151617",
		plain: `45000054 a6f20000 4001e778 c6336405 c0000205 08005b7a 3a080000 553bec10
			00073627 08090a0b 0c0d0e0f 10111213 14151617 18191a1b 1c1d1e1f 20212223
			24252627 28292a2b 2c2d2e2f 30313233 34353637 01020204`,
		cipher: `24039428 b97f417e 3c13753a 4f05087b 67c352e6 a7fab1b9 82d466ef 407ae5c6
			14ee8099 d52844eb 61aa95df ab4c02f7 2aa71e7c 4c4f64c9 befe2fac c638e8f3
			cbec163f ac469b50 2773f6fb 94e664da 9165b828 29f641e0
			76aaa826 6b7fb0f7 b11b3699 07e1ad43`,
	},
}
