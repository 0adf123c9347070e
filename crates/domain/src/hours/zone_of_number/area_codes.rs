//! Which area codes of the North American Numbering Plan lie in one time zone, and in which.

use chrono_tz::Tz;

/// Geographic area codes, by zone: those of libphonenumber 9.0.43 (November 2026), whose table
/// names zones by prefix, less those whose area has two zones, as overlays of such areas have.
/// A code that is not here has no zone.
///
/// Left out, since they straddle two zones: 208 and 986 (Idaho), 219, 574, 812 and 930 (Indiana),
/// 270, 364 and 606 (Kentucky), 308 (Nebraska), 423 (Tennessee), 448 and 850 (Florida), 458 and
/// 541 (Oregon), 605 (South Dakota), 620 and 785 (Kansas), 701 (North Dakota), 775 (Nevada), 906
/// (Michigan), 907 (Alaska), 928 (Arizona); 236, 250, 257, 672 and 778 (British Columbia), 306, 474
/// and 639 (Saskatchewan), 367, 418 and 581 (eastern Quebec), 709 and 879 (Newfoundland and
/// Labrador), 807 (Ontario), 867 (the territories). Codes of no place, such as 500 and 800, are
/// left out too.
pub(super) const AREA_CODES: &[(Tz, &[u16])] = &[
    (
        Tz::America__New_York,
        &[
            201, 202, 203, 207, 212, 215, 216, 220, 223, 227, 229, 231, 234, 239, 240, 248, 252,
            260, 267, 269, 272, 276, 283, 301, 302, 304, 305, 313, 315, 317, 321, 324, 326, 329,
            330, 332, 336, 339, 347, 351, 352, 363, 380, 386, 401, 404, 407, 410, 412, 413, 419,
            434, 440, 443, 445, 463, 470, 472, 475, 478, 484, 502, 508, 513, 516, 517, 518, 540,
            551, 561, 567, 570, 571, 582, 585, 586, 603, 607, 609, 610, 614, 616, 617, 631, 640,
            645, 646, 656, 667, 678, 680, 681, 686, 689, 703, 704, 706, 716, 717, 718, 724, 727,
            728, 732, 734, 740, 743, 754, 757, 762, 765, 770, 771, 772, 774, 781, 786, 802, 803,
            804, 810, 813, 814, 821, 826, 828, 835, 838, 839, 843, 845, 848, 854, 856, 857, 859,
            860, 862, 863, 864, 865, 878, 904, 908, 910, 912, 914, 917, 919, 929, 934, 937, 941,
            943, 947, 948, 954, 959, 973, 978, 980, 984, 989,
        ],
    ),
    (
        Tz::America__Chicago,
        &[
            205, 210, 214, 217, 218, 224, 225, 228, 235, 251, 254, 256, 262, 274, 281, 309, 312,
            314, 316, 318, 319, 320, 325, 327, 331, 334, 337, 346, 353, 361, 402, 405, 409, 414,
            417, 430, 432, 447, 464, 469, 479, 501, 504, 507, 512, 515, 531, 534, 539, 557, 563,
            572, 573, 580, 601, 608, 612, 615, 618, 629, 630, 636, 641, 651, 659, 660, 662, 682,
            708, 712, 713, 715, 726, 730, 731, 737, 763, 769, 773, 779, 806, 815, 816, 817, 830,
            832, 847, 870, 872, 901, 903, 913, 918, 920, 931, 936, 938, 940, 945, 952, 956, 972,
            975, 979, 985,
        ],
    ),
    (
        Tz::America__Denver,
        &[
            303, 307, 385, 406, 435, 505, 575, 719, 720, 748, 801, 915, 970, 983,
        ],
    ),
    (Tz::America__Phoenix, &[480, 520, 602, 623]),
    (
        Tz::America__Los_Angeles,
        &[
            206, 209, 213, 253, 279, 323, 341, 350, 360, 369, 408, 415, 424, 425, 442, 503, 509,
            510, 530, 559, 562, 564, 619, 626, 628, 650, 657, 661, 669, 702, 707, 714, 725, 738,
            747, 760, 805, 818, 820, 831, 840, 858, 909, 916, 925, 949, 951, 971,
        ],
    ),
    (Tz::Pacific__Honolulu, &[808]),
    (Tz::America__Halifax, &[428, 506, 782, 902]),
    (
        Tz::America__Toronto,
        &[
            226, 249, 263, 273, 289, 343, 354, 365, 382, 416, 437, 438, 450, 468, 514, 519, 548,
            579, 613, 647, 683, 705, 742, 753, 819, 873, 905, 942,
        ],
    ),
    (Tz::America__Winnipeg, &[204, 431, 584]),
    (Tz::America__Edmonton, &[368, 403, 587, 780, 825]),
    (Tz::America__Vancouver, &[604]),
    (Tz::America__Anguilla, &[264]),
    (Tz::America__Antigua, &[268]),
    (Tz::America__Barbados, &[246]),
    (Tz::America__Cayman, &[345]),
    (Tz::America__Dominica, &[767]),
    (Tz::America__Grand_Turk, &[649]),
    (Tz::America__Grenada, &[473]),
    (Tz::America__Jamaica, &[658, 876]),
    (Tz::America__Lower_Princes, &[721]),
    (Tz::America__Montserrat, &[664]),
    (Tz::America__Nassau, &[242]),
    (Tz::America__Port_of_Spain, &[868]),
    (Tz::America__Puerto_Rico, &[787, 939]),
    (Tz::America__Santo_Domingo, &[809, 829, 849]),
    (Tz::America__St_Kitts, &[869]),
    (Tz::America__St_Lucia, &[758]),
    (Tz::America__St_Thomas, &[340]),
    (Tz::America__St_Vincent, &[784]),
    (Tz::America__Tortola, &[284]),
    (Tz::Atlantic__Bermuda, &[441]),
    (Tz::Pacific__Guam, &[671]),
    (Tz::Pacific__Pago_Pago, &[684]),
    (Tz::Pacific__Saipan, &[670]),
];
