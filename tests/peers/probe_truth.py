"""The form of decay of every optimizer of torch.optim and pytorch_optimizer 4.1 that takes `weight_decay`.

Made by reading their source, not by running them: for pytorch_optimizer which arguments each passes to
`apply_weight_decay` (step size, decoupled or not, ratio), the default of its flag, and what stands between
the gradient and the update. Names are "package.Class".
"""

# Arguments without which a constructor refuses.
REQUIRED = {"po.Ranger21": {"num_iterations": 1000}, "po.BSAM": {"num_data": 100}}

# Form, reason, names.
_READ = (
    (
        "coupled",
        "λw is added to the gradient; nothing divides by the gradient's size",
        "torch.ASGD torch.SGD",
    ),
    (
        "coupled",
        "no flag, or weight_decouple False by default: λw is added to the gradient, and the step is "
        "lr times a momentum of it",
        "po.AccSGD po.AggMo po.PID po.QHM po.ScheduleFreeSGD",
    ),
    ("coupled", "added to the gradient; only the momentum's coefficient adapts, not the step", "po.Adai"),
    (
        "coupled",
        "added to the gradient (weight_decay_type 'l2'); divided by a curvature, not a size",
        "po.ApolloDQN",
    ),
    (
        "coupled",
        "added to the gradient after it has been normalised or preconditioned, before the momentum",
        "po.NovoGrad po.ScalableShampoo",
    ),
    (
        "sign-normalised",
        "λw is added to the gradient, which is divided by a running size (decoupled_weight_decay=False)",
        "torch.Adadelta torch.Adagrad torch.Adam torch.Adamax torch.NAdam torch.RAdam torch.RMSprop",
    ),
    (
        "sign-normalised",
        "weight_decouple False by default: λw is added to the gradient, which is divided by a running size",
        "po.ADOPT po.AdEMAMix po.AdaDelta po.AdaMax po.AdaSmooth po.AdamG po.Aida po.DAdaptAdaGrad "
        "po.DAdaptAdam po.DualAdam po.MADGRAD po.PAdam po.QHAdam po.ROSE po.SWATS",
    ),
    ("sign-normalised", "added to the gradient, of whose momentum the sign is taken", "po.DAdaptLion"),
    (
        "sign-normalised",
        "added to the gradient; the step is divided by the first gradient's norm",
        "po.DAdaptSGD",
    ),
    (
        "sign-normalised",
        "added to the gradient, divided by roots of its second moment matrices",
        "po.Shampoo",
    ),
    (
        "sign-normalised",
        "added to the gradient, times the trust ratio |w|/(|g| + λ|w|): without gradient λ cancels",
        "po.LARS",
    ),
    ("decoupled", "w *= 1 - lr·λ before the update (torch)", "torch.Adafactor torch.AdamW torch.Muon"),
    (
        "decoupled",
        "weight_decouple is True by default and fixed_decay is not: w *= 1 - lr·λ with the group's lr",
        "po.AdaBelief po.AdaBound po.AdaGC po.AdaGO po.AdaHessian po.AdaMod po.AdaMuon po.AdaNorm po.AdaPNM "
        "po.AdaTAM po.Adalite po.AdamWSN po.Alice po.Ano po.AvaGrad po.BCOS po.CAME po.DiffGrad "
        "po.DistributedMuon po.EXAdam po.EmoFact po.EmoLynx po.EmoNavi po.Grams po.Kate po.LaProp "
        "po.Lamb po.Lion po.MARS po.Muon po.NorMuon po.PNM po.RACS po.RAdam po.SCION po.SCIONLight po.SGDSaI "
        "po.SGDW "
        "po.SignSGD po.SimplifiedAdEMAMix po.SophiaH po.SpectralSphere po.TAM po.Tiger po.VSGD po.Yogi",
    ),
    ("decoupled", "the same, and an average over every sixth step beside it", "po.Ranger"),
    (
        "decoupled",
        "no flag: w *= 1 - lr·λ always",
        "po.AdamMini po.Conda po.DASH po.DeMo po.Fira po.FlashAdamW po.GaLore po.MuonClip po.SOAP "
        "po.SPAM po.SaRA po.StableSPAM",
    ),
    ("decoupled", "lr²/max_lr in groups marked normalized, lr in all others", "po.AdamC"),
    ("decoupled", "weight_decouple=False divides by 1 + lr·λ, which is the same to first order", "po.Adan"),
    ("decoupled", "λw is added to the preconditioned update, for matrices", "po.Kron"),
    ("decoupled", "λw is added to the update of the transformed factors", "po.LoRARite"),
    ("decoupled", "lr·λ of a running average of the weights", "po.FOCUS"),
    (
        "decoupled",
        "λw is added to the normalised update of the sequence z; the weights are a blend with it",
        "po.ScheduleFreeAdamW po.ScheduleFreeRAdam",
    ),
    ("scaled", "decoupled, with the bias-corrected step size", "po.APOLLO"),
    ("scaled", "decoupled, with lr times the root mean square of the weights", "po.AdaLOMO"),
    ("scaled", "decoupled, with a step size from norms of weights and gradients", "po.ASGD"),
    ("scaled", "decoupled, with the relative step size, which replaces lr", "po.AdaFactor"),
    ("scaled", "decoupled, times wd_ratio where the update is projected", "po.AdamP po.SGDP"),
    ("scaled", "decoupled, divided by the root of the mean second moment", "po.AdamS"),
    ("scaled", "decoupled, with lr divided by the root mean square of the scaled gradient", "po.StableAdamW"),
    ("scaled", "decoupled, with the estimated step size d·lr", "po.Prodigy"),
    ("scaled", "divided by 1 + d·lr·λ, with the estimated step size", "po.DAdaptAdan"),
    ("scaled", "decoupled, with lr that the constructor divides by 1 + lamb", "po.GrokFastAdamW"),
    ("scaled", "decoupled, divided by a normalised variance", "po.Ranger21"),
    ("scaled", "decoupled, with lr·2/(rows + columns)", "po.SPlus"),
    ("scaled", "λw divided by the Fisher information, and clipped, beside the momentum", "po.FAdam"),
    ("none", "λ multiplies the gradient and joins the damping; nothing is taken from the weights", "po.BSAM"),
)
TRUTH = {name: form for form, _, names in _READ for name in names.split()}
REASON = {name: reason for _, reason, names in _READ for name in names.split()}

# With options: class, options, form.
FLAGGED = (
    ("torch.Adam", {"decoupled_weight_decay": True}, "decoupled"),
    ("torch.NAdam", {"decoupled_weight_decay": True}, "decoupled"),
    ("torch.RAdam", {"decoupled_weight_decay": True}, "decoupled"),
    ("torch.SGD", {"momentum": 0.9}, "coupled"),
    ("torch.SGD", {"momentum": 0.9, "nesterov": True, "dampening": 0.0}, "coupled"),
    ("po.SGDW", {"momentum": 0.9}, "decoupled"),
    ("po.SGDW", {"weight_decouple": False}, "coupled"),
    ("po.ScalableShampoo", {"decoupled_weight_decay": True}, "decoupled"),
    ("po.AdaBelief", {"weight_decouple": False}, "sign-normalised"),
    ("po.Lion", {"weight_decouple": False}, "sign-normalised"),
    ("po.ADOPT", {"weight_decouple": True}, "decoupled"),
    *(
        (name, {"weight_decouple": True, "fixed_decay": True}, "independent")
        for name in [
            "po.ADOPT",
            "po.AdEMAMix",
            "po.AdaBelief",
            "po.AdaBound",
            "po.AdaGC",
            "po.AdaMax",
            "po.AdaMod",
            "po.AdaNorm",
            "po.AdaPNM",
            "po.AdaTAM",
            "po.Adalite",
            "po.AdamG",
            "po.AggMo",
            "po.Aida",
            "po.Ano",
            "po.AvaGrad",
            "po.CAME",
            "po.DiffGrad",
            "po.EXAdam",
            "po.EmoNavi",
            "po.Kate",
            "po.LaProp",
            "po.Lamb",
            "po.Lion",
            "po.NovoGrad",
            "po.PAdam",
            "po.PID",
            "po.PNM",
            "po.QHAdam",
            "po.QHM",
            "po.RACS",
            "po.RAdam",
            "po.Ranger",
            "po.SWATS",
            "po.Shampoo",
            "po.SophiaH",
            "po.TAM",
            "po.Tiger",
            "po.Yogi",
        ]
    ),
    # Their `apply_weight_decay` gets no gradient, or one that is not used any more: a silent no-op.
    ("po.RAdam", {"weight_decouple": False}, "none"),
    ("po.AdamP", {"weight_decouple": False}, "none"),
)
